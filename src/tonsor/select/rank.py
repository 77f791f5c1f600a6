"""Lanes of steps: in which order the pieces of each group would go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tonsor.criteria.score import Scores
from tonsor.types import Group

Rank = Literal["global", "per_group", "normalised"]
Array = np.ndarray[Any, np.dtype[np.float64]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Lane:
    """Groups that lose indices together, their orders, and the counts they may have.

    `orders` lists the indices of each group from the lowest score up, `kept` the allowed
    counts of each group from the largest down, `keys` what each step down costs in the
    ranking.
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
        return int(np.abs(self.kept[0] / self.kept[0][0] - fraction).argmin())


def make_lane(
    groups: Sequence[Group], scores: Scores, rank: Rank, round_to: int, floor: float
) -> Lane:
    """Order the pieces of tied groups and cut the order into steps.

    `floor` is the least that stays of a group: a number, or below 1 a fraction. A step of a
    tie removes `unit` indices of each group, and the kept count of groups whose unit is 1 is
    a multiple of `round_to`.
    """
    orders = tuple(np.argsort(scores[g.name], kind="stable") for g in groups)
    ranked = [scores[g.name][o] for g, o in zip(groups, orders, strict=True)]
    if rank == "normalised":
        ranked = [r / (r.mean() or 1.0) for r in ranked]
    whole = groups[0].size // groups[0].unit
    least = max(_least(floor, g) for g in groups)
    multiple = math.lcm(*(round_to // math.gcd(round_to, g.unit) for g in groups))
    steps = [whole, *(n for n in range(whole - 1, 0, -1) if n % multiple == 0 and n >= least)]
    counts = np.array(steps, dtype=np.int64)
    gone = whole - counts
    if rank == "per_group":
        keys = gone[1:] / whole
    else:
        keys = np.zeros(len(gone) - 1)
        for row, group in zip(ranked, groups, strict=True):
            totals = np.concatenate([[0.0], np.cumsum(row)])
            keys += np.diff(totals[gone * group.unit]) / (np.diff(gone) * group.unit)
        keys = np.maximum.accumulate(keys / len(groups))
    kept = tuple(counts * g.unit for g in groups)
    return Lane(tuple(g.name for g in groups), orders, kept, keys)


def _least(floor: float, group: Group) -> int:
    """Return how many steps of a group must stay."""
    wanted = math.ceil(floor * group.size) if floor < 1 else int(floor)
    return max(1, -(-min(wanted, group.size) // group.unit))


def order_steps(lanes: Sequence[Lane]) -> Indices:
    """Return, for each step down in the common order, the lane that takes it."""
    owner = np.concatenate([np.full(len(x.keys), i) for i, x in enumerate(lanes)])
    step = np.concatenate([np.arange(len(x.keys)) for x in lanes])
    keys = np.concatenate([x.keys for x in lanes])
    return owner[np.lexsort((owner, step, keys))]


def counts_after(lanes: Sequence[Lane], steps: Mapping[int, int] | Indices) -> dict[str, int]:
    """Return how many indices each group keeps when lanes have taken so many steps."""
    return {
        name: int(kept[int(steps[i])])
        for i, lane in enumerate(lanes)
        for name, kept in zip(lane.names, lane.kept, strict=True)
    }
