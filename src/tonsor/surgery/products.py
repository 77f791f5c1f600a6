"""One product of matrices for many columns, of what the taps of those read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.surgery.shifts import CACHE, Pads, kind_of, reached

_FEW = 49  # outputs of so many places, or fewer, are too small for a product of each sample


def multiplied(
    x: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor, sizes: Sequence[int],
    stride: Sequence[int],
) -> Tensor:  # fmt: skip
    """Gather what is read from a view of the input, in parts that stay near the processor.

    The input is padded already; `starts` are those of `starts_of`, `sizes` those of the output.
    """
    kind = kind_of(x)
    x, weight = x.to(kind).contiguous(), weight.to(kind)
    first = weight.new_zeros(1) if bias is None else bias.to(kind)
    shape = (len(x), weight.shape[1], *sizes)
    # What is followed for gradients can't be written into one tensor, and is put together.
    followed = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, first))
    out = None if followed else x.new_empty(shape)
    seen, found = _windows(x, sizes, stride), list[Tensor]()
    run = _together if math.prod(sizes) <= _FEW else _each
    samples, rows = _many(x, weight, sizes, whole=followed)
    for begin in range(0, max(1, len(x)), samples):
        for row in range(0, sizes[0], rows):
            here = slice(begin, begin + samples), slice(None), slice(row, row + rows)
            into = None if out is None else out[here].flatten(2)
            found.append(run(seen[here], starts, weight, first, into))
    if out is None:
        out = (found[0] if len(found) == 1 else torch.cat(found)).view(shape)
    return out


def sliced(
    x: Tensor, weight: Tensor, bias: Tensor | None, inputs: Tensor, counts: Sequence[int],
    kernel: Sequence[int], sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """Compute the same of whole tensors only, for a graph that others run.

    `inputs` has that of each column, and `counts` how many columns each position has.
    """
    read: list[Tensor] = []  # said so, for what compiles this does not know `list[Tensor]()`
    at = 0
    for place, some in zip(product(*map(range, kernel)), counts, strict=True):
        if some:
            there: tuple[Any, ...] = (..., *(
                slice(i * d, i * d + s * (n - 1) + 1, s)
                for i, d, s, n in zip(place, dilation, stride, sizes, strict=True)
            ))  # fmt: skip
            read.append(x[there].index_select(1, inputs[at : at + some]))
            at += some
    if not read:
        out = reached(x.new_zeros(len(x), weight.shape[1], *sizes, dtype=kind_of(x)), x, weight)
    else:
        out = torch.matmul(weight.t(), torch.cat(read, 1).flatten(2)).unflatten(2, sizes)
    return out if bias is None else out + bias.view(1, -1, *[1] * len(sizes)).to(out.dtype)


def _windows(x: Tensor, sizes: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Show for each number of a sample that a tap may start at what the tap reads from there.

    That is `[sample, start, *output]`. One index for each column then finds all that it reads,
    which is faster than indices of its input and its place in the kernel.
    """
    whole, *inner = x.stride()[0], *x.stride()[2:]
    steps = [s * n for s, n in zip(stride, inner, strict=True)]
    last = sum(step * (n - 1) for step, n in zip(steps, sizes, strict=True))
    starts = x.shape[1:].numel() - last
    return x.as_strided((len(x), starts, *sizes), (whole, 1, *steps))


def starts_of(taps: Tensor, sizes: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """Return where in a sample of these sizes, number after number, each column starts to read.

    `taps` has the input and the place in the kernel of each column: `[1 + rank, column]`.

    >>> starts_of(torch.tensor([[0, 1], [0, 2]]), [10], [3])  # of inputs 0 and 1, taps 0 and 2
    tensor([ 0, 16])
    """
    found = taps[0]
    for places, n, d in zip(taps[1:], sizes, dilation, strict=True):
        found = torch.add(found * n, places, alpha=d)
    return found


def _each(
    seen: Tensor, starts: Tensor, weight: Tensor, first: Tensor, into: Tensor | None
) -> Tensor:
    """Multiply sample by sample: `[sample, filter, place]`."""
    read = seen[:, starts].flatten(2)
    filters = weight.t().expand(len(seen), -1, -1)
    return torch.baddbmm(first.view(1, -1, 1), filters, read, out=into)


def _together(
    seen: Tensor, starts: Tensor, weight: Tensor, first: Tensor, into: Tensor | None
) -> Tensor:
    """Multiply all samples in one product, whose rows are places of samples."""
    read = seen.transpose(0, 1)[starts].flatten(1)
    made = torch.addmm(first, read.t(), weight)
    made = made.view(len(seen), seen.shape[2:].numel(), weight.shape[1]).transpose(1, 2)
    return made.contiguous() if into is None else into.copy_(made)


def padded(x: Tensor, pads: Pads) -> Tensor:
    """Put zeros around an input; without any it stays as it is."""
    if all(before == behind == 0 for before, behind in pads):
        return x
    return F.pad(x, [n for pair in reversed(pads) for n in pair])


def _many(
    x: Tensor, weight: Tensor, sizes: Sequence[int], *, whole: bool
) -> tuple[int, int]:  # fmt: skip
    """How many samples at a time, and how many of the first dimension of one, if not the whole."""
    row = len(weight) * math.prod(sizes[1:]) * x.element_size()
    rows = max(1, min(sizes[0], CACHE // max(1, row)))
    if whole or rows == sizes[0]:
        return max(1, min(len(x), CACHE // max(1, row * sizes[0]))), sizes[0]
    return 1, rows
