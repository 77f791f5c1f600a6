"""By how much the probability of going changes at an update, from the rank of a piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from tonsor.errors import SelectionError

Shape = Literal["exponential", "linear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """The change of a probability: `most` at rank 0, nothing at the goal, negative beyond.

    >>> Increment()(torch.tensor([0, 400, 600, 800]), goal=600).tolist()
    [0.05, 0.0125, 0.00, -0.025]

    The goal is how many pieces are to go. The curve falls all the way and is the same on both
    sides of its centre, the rank `inflection(goal)`, where it has come down to `centre` of `most`.
    What is beyond the goal becomes safer with time, unless `recovery` is switched off. A straight
    line (`shape="linear"`) makes no use of `centre`. Nothing is below -1, after which each
    probability is 0 anyway.
    """

    most: float = 0.05
    centre: float = 0.25
    shape: Shape = "exponential"
    recovery: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.most <= 1:
            message = (
                f"the largest increment of a probability is above 0 and at most 1, got "
                f"most={self.most}; SPP has 0.05"
            )
            raise SelectionError(message)
        if not 0 < self.centre < 1:
            message = (
                f"the centre of the increment is a fraction of the largest, above 0 and below 1, "
                f"got centre={self.centre}; SPP has 0.25"
            )
            raise SelectionError(message)
        if self.shape not in get_args(Shape):
            message = (
                f"an increment has no shape {self.shape!r}; choose one of "
                f"{', '.join(get_args(Shape))}"
            )
            raise SelectionError(message)

    def __call__(self, ranks: Tensor, goal: float) -> Tensor:
        """Return the change at each rank, in float64; ranks count from 0, and may be fractions."""
        _check(goal)
        ranks = ranks.double()
        if self.shape == "linear":
            change = self.most - (self.most / goal) * ranks
        else:
            alpha, middle = self._alpha(goal), self.inflection(goal)
            high = self.most * torch.exp(-alpha * ranks)
            low = 2 * self.centre * self.most - self.most * torch.exp(alpha * (ranks - 2 * middle))
            change = torch.where(ranks <= middle, high, low)
        # Far behind the centre the power is infinite; this brings it back.
        return change.clamp(min=-1.0 if self.recovery else 0.0)

    def inflection(self, goal: float) -> float:
        """Return the rank of the centre, where the change is `centre` times `most`."""
        _check(goal)
        if self.shape == "linear":
            return (1 - self.centre) * goal
        return -math.log(self.centre) / self._alpha(goal)

    def _alpha(self, goal: float) -> float:
        """How fast it falls: so that nothing is left of it at the goal."""
        return math.log(2 / self.centre) / goal


def _check(goal: float) -> None:
    if not 0 < goal < math.inf:
        message = f"an increment needs a number of pieces that are to go, above 0, got goal={goal}"
        raise SelectionError(message)
