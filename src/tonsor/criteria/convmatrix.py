"""Norms of a convolution written as one matrix, from its flattened input to one flattened map.

No matrix of that size is formed. All that is needed of a filter are the products of its taps,
summed over the channels that it reads: a matrix of kernel size only. Pieces that a layer reads
have, on top of each other, the matrices of all maps that they go into.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from tonsor.criteria.extrapolate import extrapolated
from tonsor.criteria.lanczos import largest
from tonsor.criteria.line import Line, Lines
from tonsor.criteria.threads import one_thread
from tonsor.criteria.toeplitz import BLOCK, eigenvalues, operator

DENSE = 256  # positions up to which finding all eigenvalues is the fastest way
_DENSE_LINE = 1024  # the same for pictures that are long and thin


def frobenius_norm(kernel: Tensor, lines: Lines) -> Tensor:
    """Return the Frobenius norms: each tap counts as often as it lies inside of the picture."""
    often = lines[0].inside()[:, None] * lines[1].inside()
    kernel = kernel.float() if kernel.dtype in (torch.float16, torch.bfloat16) else kernel
    squares = kernel.square().sum(1, dtype=torch.float64).flatten(1)
    return (squares * often.flatten().to(squares)).sum(1).sqrt()


def spectral_norm(kernel: Tensor, lines: Lines) -> Tensor:
    """Return the largest singular values."""
    lines, times = _without_idle(lines)
    thin = min(line.positions for line in lines) < 8
    if _places(lines) <= (_DENSE_LINE if thin else DENSE):
        found = by_piece(kernel, lambda t: eigenvalues(t, lines)[:, -1].sqrt(), _held(lines))
    else:
        found = by_piece(kernel, lambda t: largest(operator(t, lines)).sqrt(), _held(lines))
    return found * min(times, 1)


def nuclear_norm(kernel: Tensor, lines: Lines, *, exact: bool = False) -> Tensor:
    """Return the sums of singular values; those of large pictures from those of small ones."""
    lines, times = _without_idle(lines)
    if exact or _places(lines) <= DENSE:
        found = by_piece(kernel, lambda t: eigenvalues(t, lines).sqrt().sum(1), _held(lines))
    else:
        found = by_piece(kernel, lambda t: extrapolated(t, lines), _held(lines))
    return found * times


def by_piece(kernel: Tensor, norm: Callable[[Tensor], Tensor], numbers: int = 1) -> Tensor:
    """Take a norm of the products of the taps of each piece, `[piece, tap, tap]`.

    Pieces are brought to the same size before, in double precision; what is not finite stays so.
    `numbers` is how many of them the norm holds for a piece.
    """
    flat = kernel.flatten(2)
    numbers = max(numbers, flat.shape[2] ** 2, flat[:1].numel())
    found: list[Tensor] = []
    for some in flat.split(max(1, BLOCK // numbers)):
        size = some.double().flatten(1).norm(dim=1)
        sound = size.isfinite() & (size > 0)
        if sound.any():
            one = some[sound].double() / size[sound, None, None]
            with one_thread():
                size[sound] *= norm(one.mT @ one)
        found.append(size)
    return torch.cat(found)


def _without_idle(lines: Lines) -> tuple[Lines, int]:
    """Replace a direction of one tap by one position, and say how many there were.

    Nothing meets along it: the matrix is the same block again and again.
    """
    times, found = 1, list[Line]()
    for line in lines:
        if line.taps == 1:
            times *= int(line.inside().sum())
            line = replace(line, stride=1, padding=0, dilation=1, inputs=1, outputs=1)
        found.append(line)
    return (found[0], found[1]), times


def _places(lines: Lines) -> int:
    return lines[0].positions * lines[1].positions


def _held(lines: Lines) -> int:
    """About how many numbers there are in what stands for the matrix of one piece."""
    phases = lines[0].period * lines[1].period
    edge = max(a.reach * b.positions for a, b in (lines, lines[::-1]))
    return 8 * _places(lines) * phases + 4 * edge**2
