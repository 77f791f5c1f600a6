"""Lanes of steps: in which order the pieces of each group would go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from tonsor.criteria.score import Scores
from tonsor.types import Group

Rank = Literal["global", "per_group", "normalised", "isomorphic"]
RANKS: tuple[Rank, ...] = get_args(Rank)
Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]
Alive = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Lane:
    """Groups that lose indices together, their orders, and the counts they may have.

    `orders` lists the indices of each group in the order in which they go: what is gone already,
    then from the lowest score up, of equal scores the lowest index first. `kept` are the counts
    that each group may have, from the one it starts with down, and `keys` what each step down
    costs in the ranking.
    """

    names: tuple[str, ...]
    orders: tuple[Indices, ...]
    kept: tuple[Indices, ...]
    keys: Array

    def kept_indices(self, step: int) -> dict[str, tuple[int, ...]]:
        """Return what stays of each group after `step` steps."""
        return {
            name: tuple(np.sort(order[len(order) - int(kept[step]) :]).tolist())
            for name, order, kept in zip(self.names, self.orders, self.kept, strict=True)
        }

    def step_at(self, fraction: float) -> int:
        """Return the step that leaves about this fraction."""
        return int(np.abs(self.kept[0] / len(self.orders[0]) - fraction).argmin())


def make_lane(
    groups: Sequence[Group],
    scores: Scores,
    rank: Rank,
    round_to: int,
    floor: float,
    alive: Mapping[str, Alive] | None = None,
) -> Lane:
    """Order the pieces of tied groups and cut the order into steps.

    `floor` is the least that stays of a group: a number, or below 1 a fraction. A step of a
    tie removes `unit` indices of each group, and the kept count of groups whose unit is 1 is
    a multiple of `round_to`. Pieces that are not `alive` are gone before the first step.
    """
    masks = [(alive or {}).get(g.name) for g in groups]
    orders = tuple(_order(scores[g.name], m) for g, m in zip(groups, masks, strict=True))
    whole = groups[0].size // groups[0].unit
    start = whole if masks[0] is None else int(masks[0].sum()) // groups[0].unit
    least = max(_least(floor, g) for g in groups)
    multiple = math.lcm(*(round_to // math.gcd(round_to, g.unit) for g in groups))
    fewer = np.arange(start - 1, 0, -1, dtype=np.int64)
    fewer = fewer[(fewer % multiple == 0) & (fewer >= least)]
    counts = np.concatenate([np.array([start], dtype=np.int64), fewer])
    if rank == "per_group":
        keys = (whole - counts[1:]) / whole
    else:
        keys = np.zeros(len(fewer))
        for group, order in zip(groups, orders, strict=True):
            values = scores[group.name][order[(whole - start) * group.unit :]]
            if rank == "normalised":
                values = values / (np.abs(values).mean() or 1.0)
            keys += _means(values, (start - counts) * group.unit)
        keys = np.maximum.accumulate(keys / len(groups))
    kept = tuple(counts * g.unit for g in groups)
    return Lane(tuple(g.name for g in groups), orders, kept, keys)


def _order(values: Array, alive: Alive | None) -> Indices:
    order = np.argsort(values, kind="stable")
    if alive is None:
        return order
    return np.concatenate([order[~alive[order]], order[alive[order]]])


def _means(values: Array, gone: Indices) -> Array:
    """Return the mean of what each step removes, when so many are gone before and after it."""
    if len(gone) < 2:
        return np.zeros(0)
    return np.add.reduceat(values[: gone[-1]], gone[:-1]) / np.diff(gone)


def _least(floor: float, group: Group) -> int:
    """Return how many steps of a group must stay."""
    wanted = math.ceil(_exact(floor) * group.size) if floor < 1 else int(floor)
    return max(1, -(-min(wanted, group.size) // group.unit))


@cache
def _exact(fraction: float) -> Fraction:
    """Return a fraction as it was written: 0.07 of 100 is 7, also in floating point."""
    return Fraction(repr(float(fraction)))


def order_steps(lanes: Sequence[Lane]) -> Indices:
    """Return, for each step down in the common order, the lane that takes it."""
    owners, places = ordered(lanes)
    return owners[places]


def ordered(lanes: Sequence[Lane]) -> tuple[Indices, Indices]:
    """Number the steps of all lanes, lane after lane: return whose they are, and their order.

    Of equal keys, the step goes first after which fewer pieces of its group are gone.
    """
    owners = np.repeat(np.arange(len(lanes)), [len(x.keys) for x in lanes])
    gone = np.concatenate([owners[:0], *(len(x.orders[0]) - x.kept[0][1:] for x in lanes)])
    keys = np.concatenate([np.zeros(0), *(x.keys for x in lanes)])
    return owners, np.lexsort((owners, gone, keys))


def counts_after(lanes: Sequence[Lane], steps: Mapping[int, int] | Indices) -> dict[str, int]:
    """Return how many indices each group keeps when lanes have taken so many steps."""
    return {
        name: int(kept[int(steps[i])])
        for i, lane in enumerate(lanes)
        for name, kept in zip(lane.names, lane.kept, strict=True)
    }
