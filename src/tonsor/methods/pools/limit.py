"""What a budget allows of the cost of pools."""

from __future__ import annotations

import math

from tonsor.errors import BudgetError
from tonsor.methods.pools.base import Pools
from tonsor.select.budget import Budget, is_speedup


def limit_of(pools: Pools, budget: Budget) -> float:
    """Return what the cost may be at most; of a speed-up, what its inverse may be."""
    whole = pools.whole(budget.target)
    if not 0 < whole < math.inf:
        message = f"{budget} says nothing here, for the whole model has no {budget.target}"
        raise BudgetError(message)
    return budget.limit(1 / whole if is_speedup(budget.target) else whole)


def as_cost(amount: float, budget: Budget) -> float:
    """Return an amount as something that is to become less."""
    return 1 / amount if is_speedup(budget.target) else amount
