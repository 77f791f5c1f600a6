"""Criteria that look at feature maps only."""

from __future__ import annotations

import torch
from torch import Tensor

from tonsor.criteria.registry import criterion
from tonsor.criteria.threads import one_thread


@criterion("apoz", needs="maps", where="read")
def apoz(map: Tensor) -> Tensor:
    """The share of a piece's map that is not zero: 1 - APoZ (Hu et al., 2016)."""
    return (map != 0).flatten(1).double().mean(1)


@criterion("mean_map", needs="maps", where="read")
def mean_map(map: Tensor) -> Tensor:
    """The mean size of a piece's map, as the next weights read it."""
    return map.abs().flatten(1).double().mean(1)


@criterion("hrank", needs="maps", where="read")
def hrank(map: Tensor) -> Tensor:
    """The average rank of a piece's feature map as a matrix, over the samples (Lin et al., 2020).

    Only maps that are pictures have a rank; places where a piece is one number are not looked at.
    """
    if map.dim() != 4 or min(map.shape[2:]) == 1:
        return NotImplemented
    exact = map if map.dtype == torch.float64 else map.float()  # no ranks in half precision
    with one_thread():
        return torch.linalg.matrix_rank(exact).double().mean(1)
