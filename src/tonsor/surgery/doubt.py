"""How much of a difference may be rounding: the masked model run with other rounding.

Some networks make much of little: products of products, sums that cancel. Their two versions
differ by more than is usual though the cut is right. So where a difference is small but too large,
the masked model runs again with the result of each operator off by some last digits, and what
that changes says what a difference is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.graph.inputs import Inputs
from tonsor.surgery.masked import Follower
from tonsor.surgery.precision import Precision
from tonsor.surgery.reference import Reference
from tonsor.surgery.side import Side
from tonsor.types import Cut

SMALL = 1e-3  # a difference beyond this is never laid to rounding
ALLOWED = 10  # times what other rounding changes, which is drawn at random
_OFF = 4 * torch.finfo(torch.float64).eps


def rounded_otherwise(
    model: nn.Module, cut: Cut, reference: Reference, probe: Inputs, how: Precision
) -> Any:
    """Return what the masked model computes with every operator's result a little off."""
    follower = Follower(reference)
    generator = torch.Generator().manual_seed(0)

    def execute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = follower.execute(index, func, args, kwargs)
        given = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.is_floating_point() and tensor.untyped_storage()._cdata not in given:
                noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.mul_(1 + _OFF * (2 * noise - 1).to(tensor))
        return out

    return Side(model, how, cut, late=False).run(probe, execute, follower.observe)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
