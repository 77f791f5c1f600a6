"""Blocks or filters? LayerPrune against filter pruning on one network, on all that is measured.

There are four steps, each of trials that build on those of the step before: blocks are scored by
every criterion; models are cut, without blocks or filters, and trained on; their latencies are
measured in turns; and filters are cut to just the latencies that the models without blocks have.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.blocks.voting import FIVE
from tonsor.families.blocks.find import find_blocks
from tonsor.methods.layerprune.iterative import prune_iteratively
from tonsor.plan_json import load_plan, save_plan
from tonsor.plans import Plan
from tonsor.select.block_plan import plan_blocks
from tonsor.select.budget import Budget
from tonsor.select.make import plan
from tonsor.select.timed import plan_timed
from tonsor.study.base import Base, after_cut, tune
from tonsor.study.schedules import PAPER, shared_groups
from tonsor.study.trials import Trial
from tonsor.train.calibrate import calibrate

SCRATCH_RATE = 0.1
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class LayerPruneStudy:
    """What is compared, and how far it goes.

    `smaller` names networks made small by hand, with their trained weights, to stand beside the
    ones of which `deep` blocks are gone.
    """

    base: Base
    by: tuple[str, ...] = ("imprint", "probe", "cosine", "ensemble", *FIVE.values(), "random")
    main: str = "imprint"
    most: int = 8
    others: tuple[int, ...] = (2, 4, 8)
    tuned_others: tuple[str, ...] = ("ensemble", "cosine", "random")
    filters: tuple[int, ...] = (100, 200, 300, 400)
    filters_by: tuple[str, ...] = tuple(PAPER.values())
    scratch: int = 4
    deep: tuple[int, ...] = (12, 18)
    smaller: Mapping[str, str] = field(default_factory=dict[str, str])
    batches: tuple[int, ...] = (1, 64)
    matched_by: str = "l1"
    seeds: tuple[int, ...] = (0,)
    rounds: int = 15

    def scoring(self) -> list[Trial]:
        """The scores of blocks, by every criterion."""
        return [self._trial("scores", by, 0, seed) for seed in self.seeds for by in self.by]

    def cutting(self) -> list[Trial]:
        """The models that are cut and trained on; what is not trained on is quick."""
        found = []
        for seed in self.seeds:
            numbers = [*range(1, self.most + 1), *self.deep]
            found += [self._trial("blocks", self.main, n, seed) for n in numbers]
            found += [self._trial("filters", by, n, seed)
                      for n in self.filters for by in self.filters_by]  # fmt: skip
            found += [self._trial("iterative", self.main, self.scratch, seed)]
            found += [self._trial("blocks", by, n, seed)
                      for by in self.tuned_others for n in self.others]  # fmt: skip
            found += [self._trial("scratch", self.main, n + 1, seed) for n in range(self.scratch)]
            found += [
                self._trial("untuned", by, n, seed)
                for by in self.by if by != self.main for n in (1, *self.others)
            ]  # fmt: skip
        return found

    def timing(self) -> list[Trial]:
        """The latencies of all models that were cut."""
        return [self._trial("latency", "", batch, seed)
                for seed in self.seeds for batch in self.batches]  # fmt: skip

    def matching(self) -> list[Trial]:
        """Filters that are cut to the latency of a model without blocks, by batch and number."""
        return [
            self._trial(f"matched{batch}", self.matched_by, n, seed)
            for seed in self.seeds for batch in self.batches for n in range(2, self.most + 1, 2)
        ]  # fmt: skip

    def _trial(self, kind: str, by: str, n: int, seed: int) -> Trial:
        name = by.replace(":", "-").replace("=", "-")
        return Trial(
            "_".join(p for p in (kind, name, str(n), str(seed)) if p),
            {
                "network": self.base.network, "kind": kind, "by": by, "n": n, "seed": seed,
                "images": self.base.images, "epochs": self.base.recipe.epochs,
            },
        )  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A study with what its earlier steps have found, and where."""

    study: LayerPruneStudy
    folder: Path
    scores: Mapping[str, Mapping[str, Any]]
    ratios: Mapping[str, float]

    def scored(self, by: str, seed: int) -> BlockScores:
        """The scores of blocks by a criterion."""
        return BlockScores.from_json(self.scores[f"{by} {seed}"])


def scores_trial(study: LayerPruneStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Score the blocks by one criterion, on training images; judged on some that are kept back."""
    started = time.perf_counter()
    base, by, seed = study.base, trial.settings["by"], trial.settings["seed"]
    anatomy = base.anatomy(base.model())
    few = None if by.partition(":")[0] in ("imprint", "probe") else base.score_batches
    scores = score_blocks(
        anatomy, find_blocks(anatomy), by, batches=base.score_on(seed), at_most=few, seed=seed,
        quiet=True,
    )  # fmt: skip
    return {"scores": scores.to_json(), "seconds": {"score": time.perf_counter() - started}}


def cut_trial(known: Known, trial: Trial, folder: Path) -> dict[str, Any]:
    """Cut a model, and train it on where that is part of the trial."""
    started = time.perf_counter()
    study, settings = known.study, trial.settings
    base, seed, kind = study.base, settings["seed"], settings["kind"]
    model = base.model()
    anatomy = base.anatomy(model)
    if kind == "iterative":
        return _iterative(known, anatomy, trial, folder)
    decided = _decided(known, anatomy, settings)
    save_plan(folder / PLAN, decided)
    if kind == "scratch":
        told = {"tuned": base.judge(_from_scratch(base, model, decided, seed, folder))}
    elif kind == "untuned":
        told = _untuned(base, model, decided, seed)
    else:
        told, _ = after_cut(base, model, decided, seed, folder)
    account = anatomy.cost_without(decided.drops)
    return {
        "macs": [anatomy.cost.macs(), account.macs(decided.counts)],
        "params": [anatomy.cost.params(), account.params(decided.counts)],
        "gone": [d.name for d in decided.drops], "answers": told,
        "seconds": {"all": time.perf_counter() - started},
    }  # fmt: skip


def _decided(known: Known, anatomy: Anatomy, settings: Mapping[str, Any]) -> Plan:
    by, n, seed = settings["by"], settings["n"], settings["seed"]
    if settings["kind"].startswith("matched"):
        return load_plan(_matched_path(known, settings))
    if settings["kind"] != "filters":
        return plan_blocks(anatomy, remove=n, by=known.scored(by, seed), quiet=True)
    shared = list(shared_groups(anatomy))
    pieces = sum(g.size for g in anatomy.prunable if g.name not in shared)
    base = known.study.base
    return plan(
        anatomy, Budget("pieces", amount=pieces - n), by=by, combine="producer", keep=shared,
        floor=1, seed=seed, batches=base.score_on(seed), at_most=base.score_batches, quiet=True,
    )  # fmt: skip


def _untuned(base: Base, model: nn.Module, decided: Plan, seed: int) -> dict[str, str]:
    slim = decided.apply(model, verify=False)
    told = {"cut": base.judge(slim)}
    calibrate(slim, base.calibrate_on(seed), base.calibrate)
    return {**told, "recalibrated": base.judge(slim)}


def _from_scratch(
    base: Base, model: nn.Module, decided: Plan, seed: int, folder: Path
) -> nn.Module:
    """Train the same small network from random weights, for as long, at a rate that suits that."""
    slim = decided.apply(model, verify=False)
    torch.manual_seed(seed)
    for module in slim.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()  # type: ignore[operator]
    recipe = base.recipe.but(lr=SCRATCH_RATE)
    tune(replace(base, recipe=recipe), slim, seed, folder)
    return slim


def _iterative(known: Known, anatomy: Anatomy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Remove one block at a time, training on and scoring anew in between."""
    base, seed = known.study.base, trial.settings["seed"]
    answers: list[str] = []

    def train(slim: nn.Module, number: int) -> None:
        calibrate(slim, base.calibrate_on(seed), base.calibrate)
        tune(base, slim, seed, folder / f"step{number}")
        answers.append(base.judge(slim))

    _, _, steps = prune_iteratively(
        anatomy.model, anatomy.inputs, trial.settings["n"], by=trial.settings["by"], tune=train,
        batches=lambda: base.score_on(seed), seed=seed, quiet=True,
    )  # fmt: skip
    return {
        "answers": {"tuned": answers[-1]},
        "steps": [
            {"gone": step.gone, "spearman": step.spearman, "answers": right}
            for step, right in zip(steps, answers, strict=True)
        ],
    }


def latency_trial(known: Known, trial: Trial, folder: Path) -> dict[str, Any]:
    """Measure all models that were cut against the whole one, in turns."""
    study, batch = known.study, trial.settings["n"]
    model = study.base.model()
    inputs = torch.randn(batch, *study.base.splits(0).shape)
    models: dict[str, nn.Module] = {"whole": model}
    for other in study.cutting():
        path, its = known.folder / other.key / PLAN, other.settings
        wanted = its["kind"] in ("blocks", "filters") and its["seed"] == trial.settings["seed"]
        if wanted and path.exists():
            models[other.key] = load_plan(path).apply(model, verify=False)
    for name, weights in study.smaller.items():
        models[f"smaller_{name}"] = smaller_network(study, name, weights)
    found = Bench(batch=batch, rounds=study.rounds).measure(models, inputs)
    ratios = {n: found.ratio(n, "whole") for n in models}
    return {
        "conditions": found.conditions,
        "ms": {n: found[n].median_ms for n in models},
        "ratios": {n: [r.median, r.low, r.high] for n, r in ratios.items()},
    }


def smaller_network(study: LayerPruneStudy, name: str, weights: str) -> nn.Module:
    """Return a trained network that was made small by hand."""
    given = study.base.splits(0)
    return zoo.load(name, weights, classes=len(given.classes), channels=given.shape[0])


def matched_plan(known: Known, trial: Trial) -> None:
    """Cut filters to the latency of the model without so many blocks, and save the plan."""
    study, settings = known.study, trial.settings
    n, seed, kind = settings["n"], settings["seed"], settings["kind"]
    path = _matched_path(known, settings)
    if path.exists():
        return
    batch = int(kind.removeprefix("matched"))
    goal = min(1.0, known.ratios[f"blocks_{study.main}_{n}_{seed} {batch}"])
    anatomy = study.base.anatomy(study.base.model())
    shared = list(shared_groups(anatomy))
    decided = plan_timed(
        anatomy, Budget("latency", kept=goal), bench=Bench(batch=batch, rounds=study.rounds),
        build=lambda budget: plan(
            anatomy, budget, by=study.matched_by, combine="producer", rank="per_group",
            keep=shared, floor=1, seed=seed,
        ), quiet=True,
    )  # fmt: skip
    save_plan(path, decided)


def _matched_path(known: Known, settings: Mapping[str, Any]) -> Path:
    named = (settings["kind"], settings["by"], settings["n"], settings["seed"])
    return known.folder / f"{'_'.join(map(str, named))}.json"
