"""Lanes of steps: in which order the pieces of each group would go."""

from __future__ import annotations

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
    """Groups that lose equally many indices, their orders, and the counts they may have.

    `orders` lists the indices of each group from the lowest score up, `kept` the allowed
    counts from the largest down, `keys` what each step down costs in the ranking.
    """

    names: tuple[str, ...]
    orders: tuple[Indices, ...]
    kept: Indices
    keys: Array

    def kept_indices(self, step: int) -> dict[str, tuple[int, ...]]:
        """Return what stays of each group after `step` steps."""
        gone = len(self.orders[0]) - int(self.kept[step])
        return {
            name: tuple(np.sort(order[gone:]).tolist())
            for name, order in zip(self.names, self.orders, strict=True)
        }


def make_lane(
    groups: Sequence[Group], scores: Scores, rank: Rank, round_to: int, floor: int
) -> Lane:
    """Order the pieces of tied groups and cut the order into steps."""
    size = groups[0].size
    orders = tuple(np.argsort(scores[g.name], kind="stable") for g in groups)
    ranked = [scores[g.name][o] for g, o in zip(groups, orders, strict=True)]
    if rank == "normalised":
        ranked = [r / (r.mean() or 1.0) for r in ranked]
    combined = np.mean(ranked, axis=0)
    kept = [size]
    kept += [n for n in range(size - 1, 0, -1) if n % round_to == 0 and n >= floor]
    counts = np.array(kept, dtype=np.int64)
    gone = size - counts
    if rank == "per_group":
        keys = gone[1:] / size
    else:
        totals = np.concatenate([[0.0], np.cumsum(combined)])
        keys = np.diff(totals[gone]) / np.diff(gone)
    return Lane(tuple(g.name for g in groups), orders, counts, np.maximum.accumulate(keys))


def order_steps(lanes: Sequence[Lane]) -> Indices:
    """Return, for each step down in the common order, the lane that takes it."""
    owner = np.concatenate([np.full(len(x.keys), i) for i, x in enumerate(lanes)])
    step = np.concatenate([np.arange(len(x.keys)) for x in lanes])
    keys = np.concatenate([x.keys for x in lanes])
    return owner[np.lexsort((owner, step, keys))]


def counts_after(lanes: Sequence[Lane], steps: Mapping[int, int] | Indices) -> dict[str, int]:
    """Return how many indices each group keeps when lanes have taken so many steps."""
    return {
        name: int(lane.kept[int(steps[i])]) for i, lane in enumerate(lanes) for name in lane.names
    }
