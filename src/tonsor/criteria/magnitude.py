"""Criteria that look at the size of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from tonsor.criteria.registry import criterion


def _norm(view: Tensor, order: float) -> Tensor:
    dims = tuple(range(1, view.dim()))
    if view.dtype in (torch.float16, torch.bfloat16):
        view = view.float()
    if view.is_complex() or not dims:
        view = view.abs()
    if not dims:
        return view
    if view.is_contiguous():
        return torch.linalg.vector_norm(view, order, dim=dims)
    # Across the rows of memory a plain sum is many times faster than `vector_norm`.
    return view.abs().sum(dims) if order == 1 else view.square().sum(dims).sqrt()


@criterion("l1")
def l1(view: Tensor) -> Tensor:
    """The sum of absolute weights of a piece."""
    return _norm(view, 1)


@criterion("l2")
def l2(view: Tensor) -> Tensor:
    """The Euclidean norm of the weights of a piece."""
    return _norm(view, 2)


@criterion("random", reads_weights=False)
def random(view: Tensor) -> Tensor:
    """A random number for each piece, drawn from torch's generator."""
    return torch.rand(view.shape[0])
