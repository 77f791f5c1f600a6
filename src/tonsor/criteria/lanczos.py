"""The largest eigenvalue of matrices that are known only by what they do."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tonsor.criteria.toeplitz import Operator

TOLERANCE = 2e-7
_MOST = 600  # steps; more are needed of long lines only, where the largest ones differ by 1e-6


def largest(matrices: Operator, *, tolerance: float = TOLERANCE) -> Tensor:
    """Return the largest eigenvalue of each matrix, by Lanczos iterations.

    A matrix is done when what is left over of its vector is below the tolerance, relative to its
    eigenvalue: then it has an eigenvalue so near. It is the largest one, as the start has a
    share in all vectors.
    """
    start = _start(matrices)
    found = start.new_zeros(len(start))
    left = torch.arange(len(start), device=start.device)
    ahead, behind = _unit(start), torch.zeros_like(start)
    diagonal, beside = start.new_zeros(len(start), 0), start.new_zeros(len(start), 0)
    check = 20
    for step in range(1, _MOST + 1):
        product = matrices(ahead)
        if step > 1:
            product -= beside[:, -1, None, None] * behind
        along = (product * ahead).sum((1, 2))
        product -= along[:, None, None] * ahead
        size = product.flatten(1).norm(dim=1)
        diagonal = torch.cat([diagonal, along[:, None]], 1)
        beside = torch.cat([beside, size[:, None]], 1)
        behind, ahead = ahead, product / size.clamp(min=1e-300)[:, None, None]
        if step < check and step < _MOST:
            continue
        check = step + max(8, step // 4)
        values, rest = _top(diagonal, beside)
        found[left] = values
        going = rest > tolerance * values
        if not going.any():
            break
        if not going.all():
            left, matrices = left[going], matrices.of(going)
            ahead, behind = ahead[going], behind[going]
            diagonal, beside = diagonal[going], beside[going]
    return found


def _top(diagonal: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalue of tridiagonal matrices, and what is left over of the whole."""
    inner = beside[:, :-1]
    matrix = torch.diag_embed(diagonal)
    matrix += torch.diag_embed(inner, -1) + torch.diag_embed(inner, 1)
    values, vectors = torch.linalg.eigh(matrix)
    return values[:, -1], beside[:, -1] * vectors[:, -1, -1].abs()


def _start(matrices: Operator) -> Tensor:
    """Noise, of which the frequencies that grow most are kept, and less of it near the edges."""
    power, (high, wide) = matrices.symbol[:, 0, 0].real, matrices.sides
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, *matrices.room, generator=random).double().to(power)
    if matrices.symbol.shape[1] == 1:
        top = (1 + 1 / max(matrices.room) ** 2) * power.amax((1, 2), keepdim=True)
        noise = torch.fft.irfft2(torch.fft.rfft2(noise) / (top - power), s=matrices.room)
    noise = noise[:, :high, :wide].expand(len(power), high, wide)
    return _unit(noise * (_bump(high)[:, None] * _bump(wide)).to(power))


def _bump(side: int) -> Tensor:
    return torch.sin(math.pi * (torch.arange(side).double() + 1) / (side + 1))


def _unit(pictures: Tensor) -> Tensor:
    return pictures / pictures.flatten(1).norm(dim=1)[:, None, None]
