"""One product of matrices for many columns, of what the taps of those read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.surgery.shifts import CACHE, Pads, out_sizes, reached


def multiplied(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, kernel: Sequence[int],
    stride: Sequence[int], dilation: Sequence[int], pads: Pads,
) -> Tensor:  # fmt: skip
    """Gather what is read from a view of the input, in parts of the batch that stay near.

    `taps` has the input and the place in the kernel of each column: `[1 + rank, column]`.
    """
    sizes = out_sizes(x.shape[2:], kernel, stride, dilation, pads)
    x = _padded(x, pads)
    first = (weight.new_zeros(1) if bias is None else bias).view(1, -1, 1)
    inner, step = x.stride()[2:], x.stride()[:2]
    strides = (
        *step, *(d * n for d, n in zip(dilation, inner, strict=True)),
        *(s * n for s, n in zip(stride, inner, strict=True)),
    )  # fmt: skip
    many, found = _many(x, weight, sizes), list[Tensor]()
    for begin in range(0, len(x), many):
        part = x[begin : begin + many]
        seen = part.as_strided((len(part), x.shape[1], *kernel, *sizes), strides)
        read = seen[(slice(None), *taps)].flatten(2)
        found.append(torch.baddbmm(first, weight.t().expand(len(part), -1, -1), read))
    if not found:
        return reached(x.new_zeros(0, weight.shape[1], *sizes), x, weight)
    out = found[0] if len(found) == 1 else torch.cat(found)
    return out.unflatten(2, sizes)


def sliced(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, counts: Sequence[int],
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads,
) -> Tensor:  # fmt: skip
    """Compute the same of whole tensors only, for a graph that others run."""
    sizes = out_sizes(x.shape[2:], kernel, stride, dilation, pads)
    x = _padded(x, pads)
    read, at = list[Tensor](), 0
    for place, some in zip(product(*map(range, kernel)), counts, strict=True):
        if some:
            there: tuple[Any, ...] = (..., *(
                slice(i * d, i * d + s * (n - 1) + 1, s)
                for i, d, s, n in zip(place, dilation, stride, sizes, strict=True)
            ))  # fmt: skip
            read.append(x[there].index_select(1, taps[0, at : at + some]))
            at += some
    if not read:
        out = reached(x.new_zeros(len(x), weight.shape[1], *sizes), x, weight)
    else:
        out = torch.matmul(weight.t(), torch.cat(read, 1).flatten(2)).unflatten(2, sizes)
    return out if bias is None else out + bias.view(1, -1, *[1] * len(sizes)).to(out.dtype)


def _padded(x: Tensor, pads: Pads) -> Tensor:
    if all(before == behind == 0 for before, behind in pads):
        return x
    return F.pad(x, [n for pair in reversed(pads) for n in pair])


def _many(x: Tensor, weight: Tensor, sizes: Sequence[int]) -> int:
    """How many samples at a time."""
    size = len(weight) * x.element_size()
    for n in sizes:
        size *= n
    return max(1, min(len(x), CACHE // max(1, size)))
