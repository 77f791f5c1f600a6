"""From a budget to what is brought down: a cost, its limit, and how both are told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tonsor.anatomy import Anatomy
from tonsor.cost.conventions import CONVENTIONS
from tonsor.errors import BudgetError
from tonsor.select.budget import Budget, is_speedup
from tonsor.select.choose import Meter
from tonsor.types import Group


@dataclass(frozen=True, slots=True)
class Aim:
    """A cost to bring down from `whole` to `limit`; `told` is the same in the target's own unit.

    They differ for speed-ups, which go up as the cost goes down.
    """

    budget: Budget
    cost: Meter
    whole: float
    limit: float
    told: Meter

    @property
    def told_limit(self) -> float:
        """The limit in the unit of the target."""
        return self.limit if self.told is self.cost else self.budget.amount or self.limit

    def tell(self, cost: float, counts: Mapping[str, int]) -> float:
        """Say what such a cost, which is that of such counts, is in the unit of the target."""
        return cost if self.told is self.cost else self.told(counts)


def aim(anatomy: Anatomy, budget: Budget, free: Iterable[Group]) -> Aim:
    """Find out how the target of a budget is counted; `free` are the groups whose pieces count."""
    told = _told(anatomy, budget.target, free)
    cost = _upside_down(told) if is_speedup(budget.target) else told
    whole = cost({})
    if not 0 < whole < math.inf:
        message = (
            f"{budget} says nothing here, for the whole model has no {budget.target} to begin "
            "with; choose another target"
        )
        raise BudgetError(message)
    return Aim(budget, cost, whole, budget.limit(whole), told)


def _told(anatomy: Anatomy, target: str, free: Iterable[Group]) -> Meter:
    if target == "pieces":
        sizes = [(g.name, g.size) for g in free]
        return lambda counts: sum(counts.get(name, size) for name, size in sizes)
    if target in CONVENTIONS and CONVENTIONS[target].finish is not None:
        return lambda counts: anatomy.cost.total(target, counts)
    return anatomy.cost.meter(target)


def _upside_down(meter: Meter) -> Meter:
    return lambda counts: 1 / meter(counts)
