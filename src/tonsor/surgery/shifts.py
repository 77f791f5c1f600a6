"""One 1×1 convolution for many stripes, and its results added up, each shifted to its place.

An output at `y` reads, for a stripe at kernel position `i`, the input at `y * stride + i *
dilation - pad`. Stripes whose offsets leave the same remainder by the stride read the same part of
the input, every stride-th place, and are run on that part together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.fibres import FibreMask

CACHE = 1 << 21  # bytes; what stripes give for a part of the batch should stay near the processor

Pads = Sequence[tuple[int, int]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class _Spot:
    """The stripes of one kernel position: where they are held, and how far their input is off."""

    position: int
    first: int
    stop: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the input, and for each position which outputs read it, and where."""

    input: tuple[slice, ...]
    spots: tuple[_Spot, ...]
    here: tuple[Any, ...]
    there: tuple[Any, ...]


def added_up(
    x: Tensor, weight: Tensor, bias: Tensor | None, filters: Tensor, counts: Sequence[int], *,
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads,
    out_channels: int,
) -> Tensor:  # fmt: skip
    """Add stripes up in place, in parts of the batch that stay near the processor."""
    sizes = out_sizes(x.shape[2:], kernel, stride, dilation, pads)
    kind = kind_of(x)
    start = x.new_zeros(1, dtype=kind) if bias is None else bias.to(kind)
    shape = (len(x), out_channels, *sizes)
    # A copy even where one sample has one place only, or the bias itself would be added to.
    out = start.view(1, -1, *[1] * len(sizes)).expand(shape).clone(
        memory_format=torch.contiguous_format
    )  # fmt: skip
    read = False
    # Small layers would take longer to be thought about than to be run.
    plain = all(type(n) is int for n in x.shape)
    given = tuple(x.shape[2:]), tuple(counts), tuple(kernel), tuple(stride), tuple(dilation)
    for part in (_parts if plain else _parts.__wrapped__)(*given, tuple(pads)):
        seen = x[(..., *part.input)]
        ours = _rows(weight, part.spots)
        many = _many(seen, len(ours))
        for begin in range(0, len(x), many):
            found = _pointwise(seen[begin : begin + many], ours)
            into, at, read = out[begin : begin + many], 0, True
            for spot, here, there in zip(part.spots, part.here, part.there, strict=True):
                some = spot.stop - spot.first
                rows = filters[spot.first : spot.stop]
                into[here].index_add_(1, rows, found.narrow(1, at, some)[there])
                at += some
    return out if read else reached(out, x, weight)


def gathered(
    x: Tensor, weight: Tensor, bias: Tensor | None, sources: Tensor, counts: Sequence[int], *,
    kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], pads: Pads,
    out_channels: int,
) -> Tensor:  # fmt: skip
    """Compute the same of whole tensors only, for a graph that others run."""
    sizes = out_sizes(x.shape[2:], kernel, stride, dilation, pads)
    x = F.pad(x, [n for pair in reversed(pads) for n in pair])
    out: Tensor | None = None
    zero = weight.new_zeros(1, weight.shape[1])
    for remainder, spots in _from_start(counts, kernel, stride, dilation).items():
        steps = [[s.steps[dim] for s in spots] for dim in range(len(kernel))]
        low = [min(q) for q in steps]
        # Said to the last place that is read, so that sizes which vary give sizes that agree.
        part = x[(..., *(
            slice(r + q * s, r + (max(qs) + n - 1) * s + 1, s)
            for r, q, qs, n, s in zip(remainder, low, steps, sizes, stride, strict=True)
        ))]  # fmt: skip
        ours = torch.cat([*(weight[s.first : s.stop] for s in spots), zero])
        given = _pointwise(part, ours)
        for spot in spots:
            there = [
                slice(q - b, q - b + n) for q, b, n in zip(spot.steps, low, sizes, strict=True)
            ]
            shifted = given[(..., *there)].index_select(1, sources[spot.position])
            out = shifted if out is None else out + shifted
    if out is None:
        out = reached(x.new_zeros(len(x), out_channels, *sizes, dtype=kind_of(x)), x, weight)
    return out if bias is None else out + bias.view(1, -1, *[1] * len(sizes)).to(out.dtype)


def sources(
    mask: FibreMask, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Indices:
    """Say for each position and filter which channel to add, of those that `gathered` has there.

    Behind the stripes that read one part of the input there is a channel of zeros, for filters
    without a stripe at that position.
    """
    found = np.zeros(mask.T.shape, dtype=np.int64)
    counts = mask.sum(axis=0).tolist()
    for spots in _from_start(counts, kernel, stride, dilation).values():
        at, zeros = 0, sum(s.stop - s.first for s in spots)
        for spot in spots:
            stays = mask[:, spot.position]
            found[spot.position] = np.where(stays, at + np.cumsum(stays) - 1, zeros)
            at += spot.stop - spot.first
    return found


def reached(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Give zeros for gradients to what nothing was read of, as a convolution does."""
    if not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return out
    return out + (x[:0].sum() + weight[:0].sum()).to(out.dtype)


def kind_of(x: Tensor) -> torch.dtype:
    """Return the type that a convolution of this would have."""
    lowered = autocast(x) and x.dtype != torch.float64
    return torch.get_autocast_dtype(x.device.type) if lowered else x.dtype


def autocast(x: Tensor) -> bool:
    """Whether convolutions choose their precision themselves."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _rows(weight: Tensor, spots: Sequence[_Spot]) -> Tensor:
    """Return the stripes of some positions; where they lie one after the other, as they lie."""
    if all(a.stop == b.first for a, b in pairwise(spots)):
        return weight[spots[0].first : spots[-1].stop]
    return torch.cat([weight[s.first : s.stop] for s in spots])


def out_sizes(
    given: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    pads: Pads,
) -> list[Any]:  # fmt: skip
    """Return how large a convolution makes its output."""
    return [
        (n + before + behind - d * (k - 1) - 1) // s + 1
        for n, k, s, d, (before, behind) in zip(given, kernel, stride, dilation, pads, strict=True)
    ]


def _by_remainder(
    counts: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int],
    pads: Pads,
) -> dict[tuple[int, ...], list[_Spot]]:  # fmt: skip
    """Sort kernel positions that have stripes by what their offsets leave over."""
    found: dict[tuple[int, ...], list[_Spot]] = {}
    first = 0
    places = product(*map(range, kernel))
    for position, (place, some) in enumerate(zip(places, counts, strict=True)):
        offsets = [i * d - before for i, d, (before, _) in zip(place, dilation, pads, strict=True)]
        split = [divmod(offset, s) for offset, s in zip(offsets, stride, strict=True)]
        if some:
            spot = _Spot(position, first, first + some, tuple(q for q, _ in split))
            found.setdefault(tuple(r for _, r in split), []).append(spot)
        first += some
    return found


def _from_start(
    counts: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> dict[tuple[int, ...], list[_Spot]]:
    """Sort them for an input that is padded already."""
    return _by_remainder(counts, kernel, stride, dilation, [(0, 0)] * len(kernel))


@lru_cache(maxsize=4096)
def _parts(
    given: tuple[int, ...], counts: tuple[int, ...], kernel: tuple[int, ...],
    stride: tuple[int, ...], dilation: tuple[int, ...], pads: tuple[tuple[int, int], ...],
) -> tuple[_Part, ...]:  # fmt: skip
    """Work out what reads what, for an input of these sizes."""
    sizes = out_sizes(given, kernel, stride, dilation, pads)
    found: list[_Part] = []
    for remainder, every in _by_remainder(counts, kernel, stride, dilation, pads).items():
        most = [len(range(r, n, s)) for r, n, s in zip(remainder, given, stride, strict=True)]
        spots = tuple(s for s in every if _meets(s, sizes, most))
        if not spots:
            continue
        low, high = _range(spots, sizes, most)
        seen = tuple(
            slice(r + a * s, r + b * s, s)
            for r, a, b, s in zip(remainder, low, high, stride, strict=True)
        )
        windows = [_windows(s, low, sizes, high) for s in spots]
        here, there = (tuple((..., *w[i]) for w in windows) for i in (0, 1))
        found.append(_Part(seen, spots, here, there))
    return tuple(found)


def _meets(spot: _Spot, sizes: Sequence[int], most: Sequence[int]) -> bool:
    """Whether any output reads input here, and not padding alone."""
    return all(max(0, -q) < min(n, m - q) for q, n, m in zip(spot.steps, sizes, most, strict=True))


def _range(
    spots: Sequence[_Spot], sizes: Sequence[int], most: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the input that any of these reads, in each dimension."""
    low, high = [], []
    for dim, (n, m) in enumerate(zip(sizes, most, strict=True)):
        steps = [s.steps[dim] for s in spots]
        low.append(max(0, min(steps)))
        high.append(min(m, max(steps) + n))
    return low, high


def _windows(
    spot: _Spot, low: Sequence[int], sizes: Sequence[int], high: Sequence[int]
) -> tuple[list[slice], list[slice]]:
    """Return which outputs read input here, and where that input is."""
    here, there = [], []
    for q, start, n, end in zip(spot.steps, low, sizes, high, strict=True):
        first, stop = max(0, -q), min(n, end - q)
        here.append(slice(first, stop))
        there.append(slice(first + q - start, stop + q - start))
    return here, there


def _pointwise(x: Tensor, weight: Tensor) -> Tensor:
    convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    return convolve(x, weight.view(*weight.shape, *[1] * (x.dim() - 2)))


def _many(part: Tensor, stripes: int) -> int:
    """How many samples at a time."""
    size = stripes * part.shape[2:].numel() * part.element_size()
    return max(1, min(len(part), CACHE // max(1, size)))
