"""SPSRC on a network at hand: its configurations, by its norms and by L1, all else the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonsor.methods.spsrc import CONFIGURATIONS, PUBLISHED, spsrc_plan
from tonsor.study.base import Base, after_cut, costs
from tonsor.study.paired import accuracy, difference, unpacked
from tonsor.study.trials import Trial

BASELINE = "l1"
NORMS = ("spectral", "nuclear", "frobenius")


@dataclass(frozen=True, kw_only=True)
class SpsrcStudy:
    """The configurations of a network, by some criteria, which judge filters by their weights."""

    base: Base
    by: tuple[str, ...] = (*NORMS, BASELINE, "random")
    seeds: tuple[int, ...] = (0,)

    @property
    def configurations(self) -> tuple[str, ...]:
        """The published configurations of this network."""
        return tuple(n for n, c in CONFIGURATIONS.items() if c.model == self.base.network)

    def trials(self) -> list[Trial]:
        """All trials."""
        return [
            Trial(
                f"{name}_{by.replace(':', '-')}_{seed}",
                {
                    "configuration": name, "by": by, "seed": seed, "images": self.base.images,
                    "epochs": self.base.recipe.epochs,
                },
            )
            for seed in self.seeds
            for name in self.configurations
            for by in self.by
        ]  # fmt: skip


def spsrc_trial(study: SpsrcStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Cut by a configuration, take statistics anew and train on."""
    started = time.perf_counter()
    settings = trial.settings
    model = study.base.model()
    anatomy = study.base.anatomy(model)
    decided = spsrc_plan(anatomy, settings["configuration"], settings["by"])
    told, _ = after_cut(study.base, model, decided, settings["seed"], folder)
    return {
        **costs(anatomy, decided),
        "table": [anatomy.cost.total("spsrc_table", c) for c in ({}, decided.counts)],
        "answers": told,
        "seconds": {"all": time.perf_counter() - started},
    }


def measured(
    study: SpsrcStudy, found: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str], float]:
    """The accuracies after fine-tuning, for the paper's own table."""
    count = len(study.base.splits(0).test)
    runs: dict[tuple[str, str], list[Any]] = {}
    for result in found.values():
        key = (result["settings"]["by"], result["settings"]["configuration"])
        runs.setdefault(key, []).append(unpacked(result["answers"]["tuned"], count))
    printed = {(p.method, p.configuration) for p in PUBLISHED}
    return {key: accuracy(mine).mean for key, mine in runs.items() if key in printed}


HEADER = (
    "configuration", "by", "MACs, M", "params, M", "FLOPs as in the paper", "after the cut",
    "statistics anew", "fine-tuned", f"against {BASELINE}",
)  # fmt: skip


def spsrc_table(
    study: SpsrcStudy, found: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, in percent; the last column is paired, image by image."""
    count = len(study.base.splits(0).test)
    for name in study.configurations:
        mine = [r for r in found.values() if r["settings"]["configuration"] == name]
        plain = [unpacked(r["answers"]["tuned"], count) for r in mine
                 if r["settings"]["by"] == BASELINE]  # fmt: skip
        for by in study.by:
            results = [r for r in mine if r["settings"]["by"] == by]
            if not results:
                continue
            runs = {
                stage: [unpacked(r["answers"][stage], count) for r in results]
                for stage in ("cut", "recalibrated", "tuned")
            }
            paired = by != BASELINE and len(plain) == len(results)
            first = results[0]
            yield (
                name, by, f"{first['macs'][1] / 1e6:.2f}", f"{first['params'][1] / 1e6:.3f}",
                f"{first['table'][1]:.2f}", *(accuracy(r).percent for r in runs.values()),
                difference(runs["tuned"], plain).signed if paired else "",
            )  # fmt: skip
