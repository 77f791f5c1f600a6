"""Results of trials, each for some seeds, and how they are told beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tonsor.study.base import Base
from tonsor.study.paired import Answers, difference, spread, unpacked

Result = Mapping[str, Any]


def right_of(base: Base, results: Sequence[Result], when: str = "tuned") -> list[Answers]:
    """Return which test images each was right on."""
    count = len(base.splits(0).test)
    return [unpacked(r["answers"][when], count) for r in results]


def apart(base: Base, results: Sequence[Result], others: Sequence[Result]) -> str:
    """Compare over the seeds that both have; empty if there are none."""
    seeds = {r["settings"]["seed"] for r in results} & {r["settings"]["seed"] for r in others}
    pairs = [[r for r in rs if r["settings"]["seed"] in seeds] for rs in (results, others)]
    return difference(*(right_of(base, rs) for rs in pairs)).signed if seeds else ""


def share(results: Sequence[Result], cost: str) -> str:
    """Say which part of a cost is left, the mean over the seeds."""
    return f"{sum(r[cost][1] / r[cost][0] for r in results) / len(results):.1%}"


def seeds_and_spread(right: Sequence[Answers]) -> str:
    """Say how many seeds there are, and by how much they differ."""
    return f"{len(right)}" if len(right) < 2 else f"{len(right)}, ± {100 * spread(right):.1f}"
