"""From the odds to one choice for each site, whose cost is what the budget says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tonsor.methods.lfpc.sampler import Drawn
from tonsor.methods.lfpc.search import Search
from tonsor.methods.lfpc.sites import Kept, Sites

_NEAR = 0.995  # of a budget; there is no need to come closer
_TRIES = 2000  # so many changes of two sites are looked at, but not more


@dataclass(frozen=True, slots=True)
class Aim:
    """What the cost of a choice is to be: `target`, to within the part `tolerance` of it.

    `about` tells the same as `cost` where nothing follows of what goes, and more quickly.
    """

    cost: Callable[[Kept], float]
    about: Callable[[Kept], float]
    target: float
    tolerance: float

    def misses(self, cost: float) -> int:
        """Return 1 where a cost is too high, -1 where it is too low, and 0 within."""
        if cost > (1 + self.tolerance) * self.target:
            return 1
        return -1 if cost < (1 - self.tolerance) * self.target else 0


@dataclass(frozen=True, slots=True)
class Decided:
    """One criterion for each site, and how many steps are left of it.

    `learned` is what the choice cost that the odds made, and `moved` how many sites had to take
    another rate to come within the tolerance.
    """

    criteria: tuple[int, ...]
    left: tuple[int, ...]
    kept: Kept
    learned: float
    cost: float
    moved: int = 0


def decide(sites: Sites, odds: Drawn, aim: Aim, how: Search) -> Decided:
    """Choose for each site by the odds.

    The criterion is the likeliest. So is the rate, or what stays is `expected`, the mean over all
    rates. If the cost is further from the target than the tolerance allows, the rates are changed
    which the odds hold to the least. With `exact`, and where what is `expected` is off by as much,
    all sites lose or regain about the same part, until the cost is just within the target.
    """
    criteria = tuple(odds.criteria.argmax(-1).tolist())
    chosen = _likeliest(odds.rates) if how.end == "likeliest" else None
    left = _left(sites, chosen) if chosen is not None else _expected(sites, odds.rates)

    def cost(left: Sequence[int]) -> float:
        return aim.cost(sites.kept(criteria, left))

    def about(left: Sequence[int]) -> float:
        return aim.about(sites.kept(criteria, left))

    learned, moved = cost(left), 0
    if chosen is not None and aim.misses(learned):
        steered = _steered(sites, odds.rates, chosen, about, aim)
        moved = sum(a != b for a, b in zip(steered, chosen, strict=True))
        left = _left(sites, steered)
    if how.exact or (chosen is None and aim.misses(learned)):
        left = _scaled(sites, left, cost, aim.target)
    return Decided(criteria, tuple(left), sites.kept(criteria, left), learned, cost(left), moved)


def _likeliest(rates: Tensor) -> list[int]:
    return rates.argmax(-1).tolist()


def _left(sites: Sites, rates: Sequence[int]) -> list[int]:
    return [site.left[rate] for site, rate in zip(sites.every, rates, strict=True)]


def _expected(sites: Sites, rates: Tensor) -> list[int]:
    left = torch.tensor([site.left for site in sites.every], dtype=torch.float64)
    mean = (rates * left).sum(-1)
    return [max(1, math.floor(m + 0.5)) for m in mean.tolist()]


def _steered(
    sites: Sites, rates: Tensor, chosen: Sequence[int], cost: Callable[[Sequence[int]], float],
    aim: Aim,
) -> list[int]:  # fmt: skip
    """Change rates, one at a time, until the cost is within the tolerance or can't come nearer.

    Each time it is the change that takes least from the odds for what it does to the cost. Where
    none helps any more, two sites may change at once, if there are not too many sites.
    """
    logs, now = rates.clamp_min(1e-300).log(), list(chosen)
    there = cost(_left(sites, now))
    for _ in range(len(now) * rates.shape[-1]):
        side = aim.misses(there)
        if not side:
            break
        best: tuple[float, int, int, float] | None = None
        for site, rate in _moves(sites, now, side, logs):
            tried = [*now[:site], rate, *now[site + 1 :]]
            reached = cost(_left(sites, tried))
            gain = side * (there - reached)
            if gain <= 0 or abs(reached - aim.target) >= abs(there - aim.target):
                continue
            price = float(logs[site, now[site]] - logs[site, rate]) / gain
            if best is None or price < best[0]:
                best = price, site, rate, reached
        if best is not None:
            _, site, rate, there = best
            now[site] = rate
            continue
        two = _two_at_once(sites, now, cost, aim, logs)
        if two is None:
            break
        now, there = two
    return now


def _two_at_once(
    sites: Sites, now: Sequence[int], cost: Callable[[Sequence[int]], float], aim: Aim, logs: Tensor
) -> tuple[list[int], float] | None:
    """Return the likeliest change of two rates that comes within the tolerance, or the nearest."""
    rates, best = logs.shape[-1], None
    if math.comb(len(now), 2) * rates**2 > _TRIES:
        return None
    there = abs(cost(_left(sites, now)) - aim.target)
    for one, other in itertools.combinations(range(len(now)), 2):
        for a, b in itertools.product(range(rates), repeat=2):
            tried = [*now]
            tried[one], tried[other] = a, b
            reached = cost(_left(sites, tried))
            off = abs(reached - aim.target)
            if off >= there:
                continue
            outside = bool(aim.misses(reached))
            lost = logs[one, now[one]] - logs[one, a] + logs[other, now[other]] - logs[other, b]
            key = outside, off if outside else float(lost)
            if best is None or key < best[0]:
                best = key, tried, reached
    return best and best[1:]


def _moves(sites: Sites, now: Sequence[int], side: int, logs: Tensor) -> list[tuple[int, int]]:
    """Return for each site the rate with the next fewer steps left, or the next more.

    Where several rates leave as many, it is the likeliest of them.
    """
    found: list[tuple[int, int]] = []
    for number, site in enumerate(sites.every):
        here = site.left[now[number]]
        odds = logs[number].tolist()
        others = [(side * (here - n), -odds[rate], rate) for rate, n in enumerate(site.left)]
        further = [o for o in others if o[0] > 0]
        if further:
            found.append((number, min(further)[2]))
    return found


def _scaled(
    sites: Sites, left: Sequence[int], cost: Callable[[Sequence[int]], float], target: float
) -> list[int]:
    """Multiply what is left of all sites by one factor, so that the cost is just within a target.

    What is still free then goes to single steps, to those sites first that were cut off most.
    """

    def times(factor: float) -> list[int]:
        return [
            min(site.steps, max(1, math.floor(factor * n)))
            for site, n in zip(sites.every, left, strict=True)
        ]

    low, high = 0.0, max(site.steps / n for site, n in zip(sites.every, left, strict=True)) + 1
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(times(middle)) <= target else (low, middle)
    found = times(low)
    rests = [low * n - f for n, f in zip(left, found, strict=True)]
    order, before = sorted(range(len(found)), key=lambda i: -rests[i]), list[int]()
    while found != before:
        before = found
        for number in order:
            if cost(found) >= _NEAR * target:
                return found
            more = [*found]
            more[number] = min(sites.every[number].steps, more[number] + 1)
            if cost(more) <= target:
                found = more
    return found
