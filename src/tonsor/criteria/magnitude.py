"""Criteria that look at the size of weights."""

from __future__ import annotations

import torch
from torch import Tensor

from tonsor.criteria.registry import criterion


def _norm(view: Tensor, order: float) -> Tensor:
    dims = tuple(range(1, view.dim()))
    dtype = torch.float32 if view.dtype in (torch.float16, torch.bfloat16) else None
    if not dims:
        return view.abs().to(dtype or view.dtype)
    return torch.linalg.vector_norm(view, order, dim=dims, dtype=dtype)


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
