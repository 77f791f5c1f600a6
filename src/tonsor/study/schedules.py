"""Little by little, or all at once? The same filters' budget, iterative against one-shot.

The setup of LayerPrune's first table: of the filters that one convolution makes alone, a tenth of
all goes each 10 minibatches, or everything before the first. Both train for as many minibatches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.families.channels import parts
from tonsor.methods.run import method_for
from tonsor.study.base import Base, costs, tune
from tonsor.study.paired import accuracy, difference, unpacked
from tonsor.study.trials import Trial
from tonsor.train.calibrate import calibrate

ITERATIVE, ONE_SHOT = "iterative", "one-shot"
PAPER = {
    "weight norm": "l2",
    "feature maps": "taylor_map",
    "Taylor": "taylor_gate",
    "batch norm": "bn_scale",
    "median": "geometric_median",
}
"""The criteria of the paper by the names that it has for them."""


@dataclass(frozen=True, kw_only=True)
class SchedulesStudy:
    """Iterative against one-shot, for some criteria and shares of the filters."""

    base: Base
    by: tuple[str, ...] = tuple(PAPER.values())
    kept: tuple[float, ...] = (0.8, 0.7)
    seeds: tuple[int, ...] = (0,)
    share: float = 0.1
    every: int = 10

    def trials(self) -> list[Trial]:
        """All trials."""
        return [
            Trial(
                f"{how}_{by.replace(':', '-')}_{100 * kept:g}_{seed}",
                {
                    "network": self.base.network, "by": by, "kept": kept, "seed": seed, "how": how,
                    "share": self.share, "every": self.every, "images": self.base.images,
                    "epochs": self.base.recipe.epochs,
                },
            )
            for seed in self.seeds
            for kept in self.kept
            for by in self.by
            for how in (ITERATIVE, ONE_SHOT)
        ]  # fmt: skip


def schedules_trial(study: SchedulesStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Prune while training, or before it, and judge before and after."""
    started = time.perf_counter()
    base, settings = study.base, trial.settings
    seed, how = settings["seed"], settings["how"]
    model = base.model()
    anatomy = base.anatomy(model)
    shared = list(shared_groups(anatomy))
    pieces = sum(g.size for g in anatomy.prunable if g.name not in shared)
    each = max(1, round(study.share * pieces))
    schedule = ONE_SHOT if how == ONE_SHOT else f"{ITERATIVE}:{each}/{study.every}"
    method = method_for(
        model, anatomy, schedule=schedule, budget=f"pieces={settings['kept']}", by=settings["by"],
        combine="producer", keep=shared, floor=1, seed=seed, batches=base.score_on(seed),
        at_most=base.score_batches,
    )  # fmt: skip
    decided = tune(base, model, seed, folder, method)
    assert decided is not None
    slim = decided.apply(model, verify=False)
    told = {"tuned": base.judge(slim)}
    calibrate(slim, base.calibrate_on(seed), base.calibrate)
    told["recalibrated"] = base.judge(slim)
    rounds = [[r.step, r.left] for r in getattr(method, "history", ())]
    return {
        **costs(anatomy, decided),
        "answers": told,
        "pieces": [pieces, rounds[-1][1] if rounds else pieces],
        "rounds": rounds,
        "notes": list(decided.made_by.get("notes", ())),
        "seconds": {"all": time.perf_counter() - started},
    }


def shared_groups(anatomy: Anatomy) -> Iterator[str]:
    """Yield the groups that several weights make, such as residual streams: they stay whole."""
    for group in anatomy.prunable:
        if sum(part.made for part in parts(anatomy, group)) > 1:
            yield group.name


HEADER = ("filters removed", "criterion", "iterative", "one-shot", "iterative - one-shot")


def schedules_table(
    study: SchedulesStudy, found: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table, in percent; the last column is paired, image by image."""
    count = len(study.base.splits(0).test)
    names = {by: name for name, by in PAPER.items()}
    for kept in study.kept:
        for by in study.by:
            runs = {
                how: [
                    unpacked(r["answers"]["tuned"], count)
                    for r in found.values()
                    if (r["settings"]["by"], r["settings"]["kept"], r["settings"]["how"])
                    == (by, kept, how)
                ]
                for how in (ITERATIVE, ONE_SHOT)
            }
            if not all(runs.values()):
                continue
            said = f"{by} ({names[by]})" if by in names else by
            gain = difference(runs[ITERATIVE], runs[ONE_SHOT])
            yield (
                f"{1 - kept:.0%}", said, accuracy(runs[ITERATIVE]).percent,
                accuracy(runs[ONE_SHOT]).percent, gain.signed,
            )  # fmt: skip
