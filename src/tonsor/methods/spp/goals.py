"""How many pieces of each pool are to go: by a ratio, by one for each, or by a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase

from tonsor.errors import BudgetError, SelectionError
from tonsor.methods.pools.base import Pools
from tonsor.methods.pools.limit import as_cost, limit_of
from tonsor.select.budget import Budget, is_speedup

_STEPS = 10_000  # ratios are looked at to a hundredth of a per cent


def ratios_of(pools: Pools, ratio: float | Mapping[str, float]) -> dict[str, float]:
    """Return which part of each pool is to go; pools that no pattern names lose nothing."""
    if not isinstance(ratio, Mapping):
        return dict.fromkeys(pools.there, float(ratio))
    for pattern in ratio:
        if not any(fnmatchcase(name, pattern) for name in pools.there):
            message = f"no pool of pieces is called '{pattern}'; they are {', '.join(pools.there)}"
            raise SelectionError(message)
    found = dict.fromkeys(pools.there, 0.0)
    for name in found:
        for pattern, value in ratio.items():
            if fnmatchcase(name, pattern):
                found[name] = float(value)
    return found


def ratios_for(pools: Pools, budget: Budget) -> dict[str, float]:
    """Return the lowest ratio, the same for all pools, with which a budget is met for certain.

    Where a pool is so small that nothing would be left of it, one piece stays.
    """
    ratio, found = _ratio_for(pools, budget), dict[str, float]()
    for name, there in pools.there.items():
        pieces = int(there.sum())
        found[name] = min(ratio, (pieces - 1) / pieces) if pieces else 0.0
    return found


def _ratio_for(pools: Pools, budget: Budget) -> float:
    limit = limit_of(pools, budget)
    # Of each pool a piece stays, so that the ratio ends where the smallest pools are down to one.
    low, high = 0, _STEPS - 1
    if (least := cost_of(pools, _left(pools, high), budget)) > limit:
        whole = pools.whole(budget.target)
        told = f"{1 / least:.4g}x" if is_speedup(budget.target) else f"{least / whole:.1%} of it"
        message = (
            f"{budget} can't be met by pieces that go by chance: with one left of each pool it is "
            f"{told}. Ask for more, keep less, or cut channels or blocks first"
        )
        raise BudgetError(message, minimum=1 / least if is_speedup(budget.target) else least)
    while low < high:
        middle = (low + high) // 2
        if cost_of(pools, _left(pools, middle), budget) <= limit:
            high = middle
        else:
            low = middle + 1
    return low / _STEPS


def cost_of(pools: Pools, left: Mapping[str, int], budget: Budget) -> float:
    """Return what it costs at most if so many pieces are left."""
    return as_cost(pools.even(left, budget.target), budget)


def _left(pools: Pools, step: int) -> dict[str, int]:
    return {
        name: max(
            min(1, int(there.sum())), int(there.sum()) - lost(step / _STEPS, int(there.sum()))
        )
        for name, there in pools.there.items()
    }


def lost(ratio: float, pieces: int) -> int:
    """Return how many pieces a ratio takes; the product is rounded, and may be just above."""
    return max(0, math.ceil((ratio - 1e-12) * pieces))
