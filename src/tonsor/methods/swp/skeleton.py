"""The filter skeleton: a number for each stripe of a convolution, by which it is multiplied."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tonsor.methods.parametrized import merge
from tonsor.methods.swp.together import Together

__all__ = ["Skeleton", "Start", "insert", "merge", "skeleton_of"]

Start = Literal["ones", "norms"]
_LEAST = 1e-3  # of the mean norm; what a stripe that is next to nothing is taken to have


class Skeleton(nn.Module):
    """Multiplies every stripe of a weight by a number of its own, which is trained.

    The numbers start as ones, or as the norms of the stripes over the mean norm of the layer. The
    weight is divided by them at first, so that nothing changes until they are trained. With
    `together`, filters that share their stripes share the numbers of them too.

    >>> conv = nn.Conv2d(8, 16, 3)
    >>> insert(conv).skeleton.shape
    torch.Size([16, 3, 3])
    >>> merge(conv)
    >>> type(conv).__name__
    'Conv2d'
    """

    def __init__(
        self, weight: Tensor, start: Start = "ones", together: Together | None = None
    ) -> None:
        super().__init__()
        self._together = together
        norms = weight.detach().norm(dim=1) if together is None else together.norms(weight)
        self.skeleton = nn.Parameter(_begun(norms, start))

    def forward(self, weight: Tensor) -> Tensor:
        """Multiply."""
        return weight * self._numbers().unsqueeze(1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Divide."""
        return weight / self._numbers().detach().unsqueeze(1)

    def _numbers(self) -> Tensor:
        return self.skeleton if self._together is None else self._together.spread(self.skeleton)

    def extra_repr(self) -> str:
        """Say how many numbers are not zero."""
        return f"{int(torch.count_nonzero(self.skeleton))}/{self.skeleton.numel()}"


def _begun(norms: Tensor, start: Start) -> Tensor:
    mean = norms.mean()
    if start == "ones" or not mean > 0:
        return torch.ones_like(norms)
    return (norms / mean).clamp_min(_LEAST)


def insert(
    conv: nn.Module, start: Start = "ones", together: Together | None = None
) -> Skeleton:  # fmt: skip
    """Give a convolution a skeleton, which changes nothing until it is trained."""
    given: Any = conv
    skeleton = Skeleton(given.weight, start, together)
    parametrize.register_parametrization(conv, "weight", skeleton)
    return skeleton


def skeleton_of(conv: nn.Module) -> Skeleton | None:
    """Return the skeleton of a convolution, if it has one."""
    if not parametrize.is_parametrized(conv, "weight"):
        return None
    held: Any = conv.parametrizations
    return next((p for p in held.weight if isinstance(p, Skeleton)), None)
