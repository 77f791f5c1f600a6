"""Marks that stand for convolutions while a model is recorded, so that they are found again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.deploy.layers import is_plain, pads_of, rank_of
from tonsor.surgery.shifts import out_sizes

_LIBRARY = torch.library.Library("tonsor", "FRAGMENT")
_LIBRARY.define(
    "site(Tensor x, int index, int filters, int[] kernel, int[] stride, int[] dilation, "
    "int[] pads) -> Tensor"
)


@torch.library.register_fake("tonsor::site", lib=_LIBRARY)
def _shape_only(
    x: Tensor,
    index: int,
    filters: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[int],
) -> Tensor:
    rank = len(kernel)
    pairs = list(zip(pads[::2], pads[1::2], strict=True))
    sizes = out_sizes(x.shape[-rank:], kernel, stride, dilation, pairs)
    return x.new_empty(*x.shape[: -rank - 1], filters, *sizes)


def is_mark(target: Any) -> bool:
    """Whether an operator of a graph is such a mark."""
    return target is torch.ops.tonsor.site.default


@contextmanager
def marked(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """Have a mark run instead of each plain convolution; yield them, in the order of their marks.

    Only shapes can be run meanwhile.
    """
    found = [(name, module) for name, module in model.named_modules() if is_plain(module)]
    try:
        for index, (_, module) in enumerate(found):
            vars(module)["forward"] = partial(_mark, index, module)
        yield found
    finally:
        for _, module in found:
            vars(module).pop("forward", None)


def _mark(index: int, conv: Any, input: Tensor | None = None, **named: Tensor) -> Tensor:
    # Convolutions of torch call it `input`, layers of fibres `x`.
    x = named["x"] if input is None else input
    rank = rank_of(conv)
    each: list[list[int]] = [
        [int(n) for n in getattr(conv, what)] for what in ("kernel_size", "stride", "dilation")
    ]
    if x.dim() not in (rank + 1, rank + 2):
        message = f"a convolution along {rank} dimensions was given {x.dim()}"
        raise ValueError(message)
    pads = [n for pair in pads_of(conv) for n in pair]
    return torch.ops.tonsor.site(x, index, conv.out_channels, *each, pads)
