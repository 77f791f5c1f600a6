"""Criteria that ask how much a piece is like the others of its place."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.criteria.registry import at_once, criterion
from tonsor.families.channels import as_real

Distance = Literal["l2", "l1", "cosine"]


@criterion("geometric_median")
def geometric_median(weight: Tensor, *, distance: Distance = "l2") -> Tensor:
    """The sum of distances to all other pieces (FPGM: He et al., 2019); the nearest go first."""
    return geometric_median_at_once(_flat(weight)[None], distance=distance)[0]


@at_once("geometric_median")
def geometric_median_at_once(weight: Tensor, *, distance: Distance = "l2") -> Tensor:
    """The same of many places of one size."""
    flat = weight.double()
    if distance == "cosine":
        unit = F.normalize(flat, dim=2)
        return (1 - unit @ unit.mT).sum(2)
    return torch.cdist(flat, flat, p=1.0 if distance == "l1" else 2.0).sum(2)


@criterion("median")
def median(weight: Tensor) -> Tensor:
    """The Euclidean distance to the elementwise median of the pieces; the nearest go first."""
    flat = _flat(weight)
    return (flat - flat.median(0).values).norm(dim=1)


def _flat(weight: Tensor) -> Tensor:
    weight = as_real(weight)
    return (weight.flatten(1) if weight.dim() > 1 else weight[:, None]).double()
