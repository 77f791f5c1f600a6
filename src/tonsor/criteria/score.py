"""Score every piece of every group that may be cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from tonsor.anatomy import Anatomy
from tonsor.criteria import magnitude
from tonsor.criteria.registry import Registered, find_criterion
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.channels import pieces
from tonsor.types import Group

Combine = Literal["mean", "sum", "max"]
Array = np.ndarray[Any, np.dtype[np.float64]]

__all__ = ["Combine", "Scores", "magnitude", "score"]


@dataclass(frozen=True)
class Scores:
    """One number for each index of each group; the lowest go first."""

    values: Mapping[str, Array]
    by: str

    def __getitem__(self, group: str) -> Array:
        return self.values[group]


def score(anatomy: Anatomy, by: str = "l2", *, combine: Combine = "mean", seed: int = 0) -> Scores:
    """Score the pieces of all groups that may be cut.

    A group runs through several weights; `combine` says how their scores become one. The
    default, the mean, asks how large the average weight slice is that a piece takes along.
    """
    found = find_criterion(by)
    if combine not in ("mean", "sum", "max"):
        message = f"combine must be 'mean', 'sum' or 'max', got {combine!r}"
        raise SelectionError(message)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        values = {g.name: _score_group(anatomy, g, found, combine) for g in anatomy.prunable}
    return Scores(values, by)


def _score_group(anatomy: Anatomy, group: Group, found: Registered, combine: Combine) -> Array:
    rows: list[Array] = []
    for member, view in pieces(anatomy, group):
        if view.is_meta and found.reads_weights:
            message = (
                f"'{member.tensor}' is on the meta device and has no values for '{found.name}' "
                "to look at. Load the weights, or plan with by='random'."
            )
            raise ScoreError(message)
        row = found.function(view).double().cpu().numpy()
        if not np.isfinite(row).all():
            bad = np.flatnonzero(~np.isfinite(row))
            message = (
                f"'{member.tensor}' gives {row[bad[0]]} as score of index {bad[0]} along "
                f"dimension {member.dim} ({len(bad)} of {len(row)} are not finite). Ranking NaN "
                "or infinite weights would be arbitrary: repair the weights, or keep this group."
            )
            raise ScoreError(message)
        rows.append(row)
    stacked = np.stack(rows)
    if combine == "sum":
        return stacked.sum(axis=0)
    return stacked.max(axis=0) if combine == "max" else stacked.mean(axis=0)
