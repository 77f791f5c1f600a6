"""Choose fibres by a threshold: given, or found so that what is above it meets a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tonsor.criteria.rows import Array
from tonsor.errors import BudgetError
from tonsor.families.following import Masks
from tonsor.fibres import FibreMask
from tonsor.select.budget import Budget, is_speedup
from tonsor.select.fibres.frame import Frame

TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fibres above a threshold, and what a budget has come to with them.

    `held` counts the fibres that are below it and stay all the same, as their layer would have
    none else.
    """

    masks: dict[str, FibreMask]
    threshold: float
    held: int = 0
    reached: float = math.nan
    met: bool = True


def above(frame: Frame, values: Mapping[str, Array], threshold: float, floor: float = 1) -> Chosen:
    """Choose the fibres whose value is above a threshold.

    `values` has one for each fibre, row after row, and the same for those that go as one. Of each
    layer at least `floor` stay, or that share if below 1, the highest first; but where none is
    above the threshold in a layer whose emptiness turns a block into its shortcut, all go.
    """
    masks: dict[str, FibreMask] = {}
    held, may_empty = 0, frame.following.may_empty
    for name, there in frame.start.items():
        mine = values[name].reshape(there.shape)
        kept = there & (mine > threshold)
        empties = name in may_empty and not kept.any()
        least = 0 if empties else _least(floor, int(there.sum()))
        missing = least - int(kept.sum())
        if missing > 0:
            more = frame.shared[name].best(mine, there & ~kept, missing)
            kept |= more
            held += int(more.sum())
        masks[name] = kept
    return Chosen(masks, threshold, held)


def _least(floor: float, size: int) -> int:
    if size == 0:
        return 0
    return max(1, min(size, math.ceil(floor * size) if floor < 1 else int(floor)))


def within(
    frame: Frame, values: Mapping[str, Array], budget: Budget, floor: float = 1,
    least: float = -math.inf, limit: float | None = None,
) -> Chosen:  # fmt: skip
    """Choose the lowest threshold, not below `least`, whose choice meets a budget.

    `limit` says the cost to reach where it is not that of the budget. Where fibres of one value
    take the cost across the limit together, as many of them stay as it allows.
    """
    limit = frame.limit(budget) if limit is None else limit

    def cost(threshold: float) -> tuple[Chosen, float]:
        found = above(frame, values, threshold, floor)
        return found, frame.cost(found.masks, budget.target)

    steps = _steps([values[n].reshape(m.shape)[m] for n, m in frame.start.items()], least)
    low, high = 0, len(steps) - 1
    found, there = cost(float(steps[high]))
    if there > limit:
        raise out_of_reach(frame, budget, found.masks, floor)
    while low < high:
        middle = (low + high) // 2
        tried, cost_of = cost(float(steps[middle]))
        if cost_of <= limit:
            high, found, there = middle, tried, cost_of
        else:
            low = middle + 1
    if low:
        found, there = _refined(frame, values, budget, limit, found, there, float(steps[low - 1]))
    reached = frame.amount(found.masks, budget.target)
    met = limit * (1 - TOLERANCE) <= there <= limit
    return Chosen(found.masks, found.threshold, found.held, reached, met)


def _steps(values: Sequence[Array], least: float) -> Array:
    """Return the thresholds to try: one that nothing is below, and where each fibre goes."""
    steps = np.unique(np.concatenate([*values, np.empty(0)]))
    if math.isfinite(least):
        return np.concatenate([[least], steps[steps > least]])
    return np.concatenate([np.nextafter(steps[:1], -np.inf) if len(steps) else [0.0], steps])


def _refined(
    frame: Frame, values: Mapping[str, Array], budget: Budget, limit: float, found: Chosen,
    there: float, below: float,
) -> tuple[Chosen, float]:  # fmt: skip
    """Let as many fibres stay of those that went at the last step as the limit allows."""
    lost = {
        name: frame.shared[name].units(
            mask & ~found.masks[name] & (values[name].reshape(mask.shape) > below)
        ) for name, mask in frame.start.items()
    }  # fmt: skip
    size = sum(map(len, lost.values()))
    if size < 2:
        return found, there

    def with_first(count: int) -> tuple[dict[str, FibreMask], float]:
        masks = dict(found.masks)
        for name, units in lost.items():
            back = frame.start[name] & frame.shared[name].holding(units[:count])
            masks[name] = masks[name] | back
            count = max(0, count - len(units))
        return masks, frame.cost(masks, budget.target)

    low, high, best = 0, size - 1, (found.masks, there)
    while low < high:
        middle = (low + high + 1) // 2
        tried = with_first(middle)
        if tried[1] <= limit:
            low, best = middle, tried
        else:
            high = middle - 1
    return Chosen(dict(best[0]), found.threshold, found.held), best[1]


def out_of_reach(frame: Frame, budget: Budget, least: Masks, floor: float = 1) -> BudgetError:
    """Say how little can be left."""
    reachable, whole = frame.amount(least, budget.target), frame.whole(budget.target)
    told = (
        f"the least that can be left is {reachable:,.6g} of {whole:,.6g} ({reachable / whole:.1%})"
    )
    if is_speedup(budget.target):
        told = f"the most that can be reached is {reachable:.4g}x"
    kind = frame.layers.kind
    one = kind.removesuffix("s")
    stay = f"{floor:.0%} of the {kind}" if floor < 1 else f"{floor:.0f} {one}{'s' * (floor > 1)}"
    together, smaller = "", ""
    if frame.group > 1:
        together = f" in all {frame.group} filters of a group"
        smaller = " take a smaller stripe_group,"
    message = (
        f"{budget} can't be met by {kind}: {told}, for at least {stay} of each layer must stay"
        f"{together}, and what may lose no {kind} or is to be kept is as it was. Ask for more, "
        f"lower floor,{smaller} or cut channels or blocks first."
    )
    return BudgetError(message, minimum=reachable)
