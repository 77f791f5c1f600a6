"""How far criteria keep the same channels at the widths of a search, and how far by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.study.lfpc import COMBINE, LfpcStudy, sites_of

Kept = dict[str, set[int]]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The part of what one criterion keeps that the other keeps too.

    `chance` is that of two choices that know nothing of each other. Groups that lose nothing are
    left out of both.
    """

    first: str
    second: str
    same: float
    chance: float


def overlaps(
    study: LfpcStudy, found: Mapping[str, Mapping[str, Any]]
) -> dict[float, tuple[Overlap, ...]]:
    """Compare all pairs of criteria on the network of a study, by the share of work that is kept.

    It is the mean over channels that are kept, of all groups and seeds.
    """
    anatomy = study.base.anatomy(study.base.model())
    by = {n: score(anatomy, n, combine=COMBINE, quiet=True).values for n in study.criteria}
    told: dict[float, tuple[Overlap, ...]] = {}
    for kept in sorted({r["settings"]["kept"] for r in found.values()}, reverse=True):
        widths = [
            _widths(anatomy, r["sites"]) for r in found.values() if r["settings"]["kept"] == kept
        ]
        pairs = combinations(study.criteria, 2)
        told[kept] = tuple(_overlap(a, b, by, widths) for a, b in pairs if any(widths))
    return told


def _widths(anatomy: Anatomy, sites: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return how many channels are kept of each group that loses some, and of how many."""
    groups = {g.name: g for g in anatomy.prunable}
    every = {
        group: (sites[site]["left"] * groups[group].unit, groups[group].size)
        for group, site in sites_of(anatomy, sites).items()
    }
    return {group: (left, size) for group, (left, size) in every.items() if left < size}


def _overlap(
    first: str,
    second: str,
    by: Mapping[str, Mapping[str, Any]],
    widths: Sequence[Mapping[str, tuple[int, int]]],
) -> Overlap:
    same, chance, every = 0, 0.0, 0
    for groups in widths:
        for group, (left, size) in groups.items():
            mine, theirs = (_best(by[n][group], left) for n in (first, second))
            same += len(mine & theirs)
            chance += left * left / size
            every += left
    return Overlap(first, second, same / every, chance / every)


def _best(values: Any, count: int) -> set[int]:
    order = np.argsort(values, kind="stable")  # of equal scores, the first goes first
    return set(order[len(order) - count :].tolist())
