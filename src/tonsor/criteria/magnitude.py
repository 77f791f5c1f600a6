"""Criteria that look at the size of weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from tonsor.criteria.registry import at_once, criterion
from tonsor.errors import SelectionError

_BLOCK = 1 << 18  # elements: what fits into a core's cache along with its squares


def _norm(view: Tensor, order: int) -> Tensor:
    dims = tuple(range(1, view.dim()))
    if view.dtype in (torch.float16, torch.bfloat16):
        view = view.float()
    if view.is_complex() or not dims:
        view = view.abs()
    if not dims:
        return view
    if order == 2 and view.is_contiguous():
        return torch.linalg.vector_norm(view, order, dim=dims)
    sums = _sum_in_blocks(view, torch.abs if order == 1 else torch.square)
    return sums if order == 1 else sums.sqrt()


def _sum_in_blocks(
    view: Tensor, function: Callable[..., Tensor], dtype: torch.dtype | None = None
) -> Tensor:
    """Sum a function of the weights of each piece, a stretch of memory at a time.

    Across the rows of memory this is many times faster than `vector_norm`, and where a weight
    is large than its squares as a whole, for which memory would have to be found.
    """
    dims = tuple(range(1, view.dim()))
    outer = max(range(view.dim()), key=view.stride)
    rows = max(1, _BLOCK * view.shape[outer] // max(1, view.numel()))
    blocks = view.split(rows, outer)
    # Once, as finding new memory costs more than the sums.
    room = torch.empty_like(blocks[0], dtype=dtype)
    parts = (function(block, out=room.narrow(outer, 0, block.shape[outer])) for block in blocks)
    if outer == 0:
        return torch.cat([part.sum(dims) for part in parts])
    # Down the rows of memory first, which leaves little to be summed in another order.
    total = torch.stack([part.sum(outer) for part in parts]).sum(0)
    return total.flatten(1).sum(1) if total.dim() > 1 else total


@criterion("l1")
def l1(weight: Tensor) -> Tensor:
    """The sum of absolute weights of a piece (Li et al., 2017)."""
    return _norm(weight, 1)


@criterion("l2")
def l2(weight: Tensor) -> Tensor:
    """The Euclidean norm of the weights of a piece."""
    return _norm(weight, 2)


@at_once("l1")
def l1_at_once(weight: Tensor) -> Tensor:
    """The same of many places of one size."""
    return weight.abs().sum(2)


@at_once("l2")
def l2_at_once(weight: Tensor) -> Tensor:
    """The same of many places of one size."""
    return torch.linalg.vector_norm(weight, dim=2)


@criterion("lp")
def lp(weight: Tensor, *, p: float = 3.0) -> Tensor:
    """The p-norm of the weights of a piece, for any p above 0."""
    if not p > 0:
        message = f"the p of 'lp' must be above 0, got {p:g}"
        raise SelectionError(message)
    if weight.is_complex() or weight.dim() == 1:
        weight = weight.abs()
    if weight.dim() == 1:
        return weight.double()
    if p == math.inf:
        return weight.flatten(1).abs().amax(1).double()

    def power(block: Tensor, *, out: Tensor) -> Tensor:
        return out.copy_(block).abs_().pow_(p)  # in double precision, or small weights vanish

    return _sum_in_blocks(weight, power, torch.float64).pow(1 / p)


@criterion("random", reads_weights=False)
def random(weight: Tensor) -> Tensor:
    """A random number for each piece, by the seed."""
    return torch.rand(weight.shape[0])
