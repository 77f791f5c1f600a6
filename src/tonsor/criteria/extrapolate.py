"""The nuclear norm of a convolution on a large picture, from those on a few small ones.

Far from the edges all positions are alike, and so are all positions of an edge. So the sum of the
singular values grows with the area, the two sides and a constant; what differs from that falls
off fast with the sides. The part of the area is known from the frequencies; the rest is found on
small pictures with the same edges, and larger ones are tried until two estimates agree.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from tonsor.criteria.line import Line, Lines
from tonsor.criteria.toeplitz import eigenvalues, symbol

SIDES = (6, 9, 12, 16, 22, 30)
CLOSE = 1e-5
_RING = 64


def extrapolated(taps: Tensor, lines: Lines) -> Tensor:
    """Return the sums of singular values."""
    high, wide = lines
    slope = _area(taps, lines)
    found, left = torch.zeros_like(slope), torch.arange(len(taps), device=taps.device)
    before: Tensor | None = None
    for small, large in pairwise(SIDES):
        sizes = [_two_sizes(line, small, large) for line in lines]
        if 2 * sizes[0][1].positions * sizes[1][1].positions > high.positions * wide.positions:
            found[left] = _total(taps[left], lines)
            break
        now = _from(taps[left], slope[left], lines, sizes)
        found[left] = now
        if before is not None:
            going = (now - before).abs() > CLOSE * now
            left, now = left[going], now[going]
            if not len(left):
                break
        before = now
    return found


def _from(taps: Tensor, slope: Tensor, lines: Lines, sizes: list[tuple[Line, Line]]) -> Tensor:
    """Extrapolate from the two sizes of each direction."""
    (high, high_more), (wide, wide_more) = sizes

    def rest(first: Line, second: Line) -> Tensor:
        return _total(taps, (first, second)) - slope * first.positions * second.positions

    corner = rest(high, wide)
    found = slope * lines[0].positions * lines[1].positions + corner
    if far := lines[0].positions - high.positions:
        found += far / (high_more.positions - high.positions) * (rest(high_more, wide) - corner)
    if far := lines[1].positions - wide.positions:
        found += far / (wide_more.positions - wide.positions) * (rest(high, wide_more) - corner)
    return found


def _two_sizes(line: Line, small: int, large: int) -> tuple[Line, Line]:
    more = max(0, line.reach - 2)
    first = line.shortened(small + more)
    return first, line.shortened(max(large + more, first.positions + 1))


def _total(taps: Tensor, lines: Lines) -> Tensor:
    return eigenvalues(taps, lines).sqrt().sum(1)


def _area(taps: Tensor, lines: Lines) -> Tensor:
    """What each position adds in a picture without edges: a mean over the frequencies."""
    high, wide = (max(_RING, 4 * -(-line.reach // line.period)) for line in lines)
    wide += wide % 2
    waves = symbol(taps, lines, (high, wide))
    if waves.shape[1] == 1:
        roots = waves[:, 0, 0].real.clamp(min=0).sqrt()
    else:
        roots = torch.linalg.eigvalsh(waves.movedim((1, 2), (3, 4))).clamp(min=0).sqrt().mean(3)
    twice = roots.sum(2) * 2 - roots[:, :, 0] - roots[:, :, -1]
    return twice.sum(1) / (high * wide)
