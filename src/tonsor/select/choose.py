"""Choose what goes: the lowest pieces first, until the budget is met."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tonsor.errors import BudgetError
from tonsor.select.rank import Indices, Lane, counts_after, order_steps

Meter = Callable[[Mapping[str, int]], float]
TOLERANCE = 0.005
_PATIENCE = 1000


@dataclass(frozen=True, slots=True)
class Choice:
    """Steps taken in each lane, the cost that is left, and whether the target was met.

    `least` is the cost with every step taken: less can't be asked for.
    """

    steps: tuple[int, ...]
    cost: float
    limit: float
    met: bool
    least: float


def choose(lanes: Sequence[Lane], meter: Meter, limit: float, fixed: Mapping[str, int]) -> Choice:
    """Find the fewest steps, in the common order, that bring the cost down to `limit`.

    The cost falls with every step, so the crossing is found by bisection. Where the piece at
    the crossing is a large one, smaller ones further on are taken in its stead, so that the
    cost ends within half a percent below the limit if any step allows it. For these alone, a
    smaller limit may keep a piece that a larger one lets go.
    """
    order = order_steps(lanes)

    def cost_of(steps: Indices) -> float:
        return meter({**counts_after(lanes, steps), **fixed})

    def steps_at(k: int) -> Indices:
        return np.bincount(order[:k], minlength=len(lanes))

    low, high = 0, len(order)
    least = cost_of(steps_at(high))
    if least > limit:
        message = f"at least {least:,.0f} remains, {limit:,.0f} was asked for"
        raise BudgetError(message, minimum=least)
    cost = least
    while low < high:
        middle = (low + high) // 2
        there = cost_of(steps_at(middle))
        if there <= limit:
            high, cost = middle, there
        else:
            low = middle + 1
    steps = steps_at(low)
    near = limit * (1 - TOLERANCE)
    if cost < near and low > 0:
        steps, cost = _closer(lanes, order, low, limit, cost_of, (steps, cost))
    return Choice(tuple(int(s) for s in steps), cost, limit, near <= cost <= limit, least)


def _closer(
    lanes: Sequence[Lane],
    order: Indices,
    crossing: int,
    limit: float,
    cost_of: Callable[[Indices], float],
    best: tuple[Indices, float],
) -> tuple[Indices, float]:
    """Leave out the step that overshoots and go on with the next ones that do not."""
    steps = np.bincount(order[: crossing - 1], minlength=len(lanes))
    cost = cost_of(steps)
    blocked = {int(order[crossing - 1])}
    for lane in order[crossing : crossing + _PATIENCE]:
        if int(lane) in blocked:
            continue
        steps[lane] += 1
        after = cost_of(steps)
        if after < best[1]:
            steps[lane] -= 1
            blocked.add(int(lane))
            continue
        cost = after
        if cost <= limit:
            return steps.copy(), cost
    return best
