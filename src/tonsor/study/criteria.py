"""Which criterion is best? All of them on one network, with everything else the same.

Every group loses the same share of its pieces, so that what is compared is which pieces a
criterion chooses, and not how it shares out the budget. `random` and `uniform` look at nothing:
`uniform` takes pieces at equal distances.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.criteria.registry import CRITERIA, find_criterion
from tonsor.criteria.score import Combine, Scores, score
from tonsor.select.make import plan
from tonsor.select.rank import Rank
from tonsor.study.base import Base, after_cut, costs
from tonsor.study.trials import Trial

UNIFORM = "uniform"


@dataclass(frozen=True, kw_only=True)
class CriteriaStudy:
    """A comparison of criteria: each at each budget for each seed."""

    base: Base
    by: tuple[str, ...] = ()
    kept: tuple[float, ...] = (0.5, 0.3)
    seeds: tuple[int, ...] = (0, 1, 2)
    rank: Rank = "per_group"
    combine: Combine = "mean"

    def criteria(self) -> tuple[str, ...]:
        """What is compared: if nothing is said, every criterion there is and `uniform`."""
        return self.by or (*sorted(CRITERIA), UNIFORM)

    def trials(self) -> list[Trial]:
        """All trials, the ones of the first seed first."""
        return [
            Trial(
                f"{by.replace(':', '-')}_{100 * kept:g}_{seed}",
                {
                    "network": self.base.network, "by": by, "kept": kept, "seed": seed,
                    "rank": self.rank, "combine": self.combine, "images": self.base.images,
                    "epochs": self.base.recipe.epochs,
                },
            )
            for seed in self.seeds
            for kept in self.kept
            for by in self.criteria()
        ]  # fmt: skip


def criteria_trial(study: CriteriaStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Score, cut, take statistics anew and train on."""
    started = time.perf_counter()
    by, seed = trial.settings["by"], trial.settings["seed"]
    base = study.base
    model = base.model()
    anatomy = base.anatomy(model)
    scores = scores_by(study, anatomy, by, seed)
    scored = time.perf_counter()
    decided = plan(anatomy, f"macs={trial.settings['kept']}", by=scores, rank=study.rank, seed=seed)
    told, _ = after_cut(base, model, decided, seed, folder)
    return {
        **costs(anatomy, decided),
        "answers": told,
        "scores": scores.to_json(),
        "seconds": {"score": scored - started, "all": time.perf_counter() - started},
    }


def scores_by(study: CriteriaStudy, anatomy: Anatomy, by: str, seed: int) -> Scores:
    """Score by a criterion, on the training images of the seed."""
    if by == UNIFORM:
        return at_equal_distances(anatomy)
    few = 2 if find_criterion(by).needs == "squares" else study.base.score_batches
    return score(
        anatomy, by, combine=study.combine, batches=study.base.score_on(seed), at_most=few,
        seed=seed, quiet=True,
    )  # fmt: skip


def at_equal_distances(anatomy: Anatomy) -> Scores:
    """Scores by which the pieces that go are spread evenly, however many go."""
    values = {g.name: _spread(g.size) for g in anatomy.prunable}
    return Scores(values, UNIFORM)


def _spread(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rank indices by their digits in base 2 read backwards: any first few are spread evenly."""
    width = max(1, (size - 1).bit_length())
    backwards = [int(f"{i:0{width}b}"[::-1], 2) for i in range(size)]
    ranks = np.empty(size, dtype=np.float64)
    ranks[np.argsort(backwards)] = np.arange(size)
    return ranks


def whole(study: CriteriaStudy) -> str:
    """Which test images the uncut network gets right."""
    return study.base.judge(study.base.model())


def by_criterion(
    found: Mapping[str, Mapping[str, Any]], kept: float
) -> dict[str, list[Mapping[str, Any]]]:
    """Collect the results of one budget by criterion, one a seed."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for result in found.values():
        if result["settings"]["kept"] == kept:
            grouped.setdefault(result["settings"]["by"], []).append(result)
    return grouped


def scores_of(found: Mapping[str, Mapping[str, Any]], seed: int, kept: float) -> Sequence[Scores]:
    """The scores that criteria gave, for one seed."""
    return [
        Scores.from_json(r["scores"])
        for r in found.values()
        if r["settings"]["seed"] == seed and r["settings"]["kept"] == kept
    ]
