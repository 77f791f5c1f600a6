"""The filter skeleton: a number for each stripe of a convolution, by which it is multiplied."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Skeleton(nn.Module):
    """Multiplies every stripe of a weight by a number of its own, which is trained.

    >>> conv = nn.Conv2d(8, 16, 3)
    >>> insert(conv).skeleton.shape
    torch.Size([16, 3, 3])
    >>> merge(conv)
    >>> type(conv).__name__
    'Conv2d'
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        ones = torch.ones(
            weight.shape[0], *weight.shape[2:], device=weight.device, dtype=weight.dtype
        )
        self.skeleton = nn.Parameter(ones)

    def forward(self, weight: Tensor) -> Tensor:
        """Multiply."""
        return weight * self.skeleton.unsqueeze(1)

    def extra_repr(self) -> str:
        """Say how many stripes are not zero."""
        return f"{int(torch.count_nonzero(self.skeleton))}/{self.skeleton.numel()}"


def insert(conv: nn.Module) -> Skeleton:
    """Give a convolution a skeleton of ones, which changes nothing until it is trained."""
    given: Any = conv
    skeleton = Skeleton(given.weight)
    parametrize.register_parametrization(conv, "weight", skeleton)
    return skeleton


def skeleton_of(conv: nn.Module) -> Skeleton | None:
    """Return the skeleton of a convolution, if it has one."""
    if not parametrize.is_parametrized(conv, "weight"):
        return None
    held: Any = conv.parametrizations
    return next((p for p in held.weight if isinstance(p, Skeleton)), None)


def merge(conv: nn.Module) -> None:
    """Multiply the weight of a convolution by its skeleton, and take that off."""
    parametrize.remove_parametrizations(conv, "weight", leave_parametrized=True)
