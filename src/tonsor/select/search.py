"""Find the most that may be kept where keeping more costs more, but only a noisy clock says it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Measure: TypeAlias = Callable[[float, bool], float]
"""From how much is kept to its cost; the flag asks for a careful, fresh measurement."""

MARGIN = 0.01  # aim below the goal by this, so that a fresh measurement holds too
NEAR = 0.03  # what is below the goal by no more than this is near enough
NARROW = 0.01  # what is kept is not looked for more finely
TRIES = 10
DESCENTS = 4  # after so many steps that didn't reach the goal comes the least
LOOSER = 3  # so often what was quickly found too dear is looked at again
STEPS_TO_LEAST = 8  # that many steps, each twice the one before, lead from all to nothing


@dataclass(frozen=True, slots=True)
class Found:
    """How much is kept, the cost as measured with care, and whether that meets the goal."""

    kept: float
    cost: float
    met: bool


@dataclass
class _Tried:
    """What has been measured, from how much is kept to the cost."""

    goal: float
    costs: dict[float, float] = field(default_factory=dict[float, float])

    def best(self, below: float = 2.0) -> float | None:
        """The most that meets the goal."""
        good = (f for f, cost in self.costs.items() if cost <= self.goal and f < below)
        return max(good, default=None)

    def missed_above(self, kept: float) -> float:
        """The least above `kept` that misses the goal."""
        return min(f for f, cost in self.costs.items() if f > kept and cost > self.goal)


def search(
    measure: Measure,
    goal: float,
    *,
    least: float,
    most: float,
    cost_of_most: float,
    tries: int = TRIES,
) -> Found:
    """Find how much to keep so that the cost, measured afresh, is at most `goal`.

    Keeping `most` costs more than that; less than `least` can't be kept. The cost may have steps
    and in places fall as more is kept: what is found has been measured itself. If nothing meets
    the goal, what is found is the least. There are at most `tries` quick measurements, and no
    more careful ones than these, STEPS_TO_LEAST and LOOSER together.
    """
    tried = _Tried(goal, {most: cost_of_most})
    for _ in range(tries):
        kept = _next(tried, least)
        if kept is None:
            break
        tried.costs[kept] = measure(kept, False)
    kept, cost = most, cost_of_most
    for kept in _candidates(tried, least):
        cost = measure(kept, True)
        if cost <= goal:
            break
        tried.costs[kept] = cost
    if cost > goal:
        return Found(kept, cost, met=False)
    return _loosened(measure, tried, Found(kept, cost, met=True), most)


def _loosened(measure: Measure, tried: _Tried, found: Found, most: float) -> Found:
    """Look again at what is above, where the clock may have been wrong about it."""
    for _ in range(LOOSER):
        above = tried.missed_above(found.kept)
        if above >= most or found.cost >= (1 - NEAR) * tried.goal:
            break
        cost = measure(above, True)
        if cost > tried.goal:
            break
        tried.costs[above] = cost
        found = Found(above, cost, met=True)
    return found


def _next(tried: _Tried, least: float) -> float | None:
    """Choose what to measure next, or nothing where that is no use any more."""
    goal, best = tried.goal, tried.best()
    if best is None:
        return _below_all(tried, least)
    worse = tried.missed_above(best)
    if tried.costs[best] >= (1 - NEAR) * goal or worse - best <= NARROW:
        return None
    low, high = tried.costs[best], tried.costs[worse]
    along = ((1 - MARGIN) * goal - low) / (high - low)
    return best + (worse - best) * min(0.8, max(0.2, along))


def _below_all(tried: _Tried, least: float) -> float | None:
    """Choose something that may be the first to meet the goal."""
    lowest, *others = sorted(tried.costs)
    if lowest <= least:
        return None
    if len(others) >= DESCENTS:
        return least
    cost, aim = tried.costs[lowest], (1 - MARGIN) * tried.goal
    guess = lowest * aim / cost  # the cost falls more slowly than that
    if others:
        slope = (tried.costs[others[0]] - cost) / (others[0] - lowest)
        guess = lowest - (cost - aim) / slope if slope > 0 else 0.0
    return max(least, min(0.9 * lowest, max(0.5 * lowest, guess)))


def _candidates(tried: _Tried, least: float) -> Iterator[float]:
    """Yield what to measure with care: the best first, then ever less, down to the least."""
    best = tried.best()
    kept, step = least if best is None else best, NARROW
    while True:
        yield kept
        if kept <= least:
            return
        below = tried.best(below=kept)
        kept = max(kept - step, least if below is None else below)
        step *= 2
