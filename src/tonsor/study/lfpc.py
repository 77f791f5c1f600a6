"""Learned criteria against each single one, at the same widths, on one trained network.

A search learns the rate and the criterion of each group. All that are compared then leave as many
channels of each group as the search found, so that they cost the same to the unit, and differ only
by the criterion that chooses them. They are cut from the same weights and trained on alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores, score
from tonsor.files import replacing
from tonsor.methods.lfpc.run import SEARCH, search_criteria
from tonsor.methods.lfpc.search import CRITERIA
from tonsor.plan_json import load_plan, save_plan
from tonsor.plans import Plan
from tonsor.select.make import plan
from tonsor.study.base import Base, after_cut, costs
from tonsor.study.trials import Trial

PLAN = "plan.json"
LEARNED, RANDOM, SEARCHED, EVEN = "lfpc", "random", "searched", "even"
COMBINE = "producer"


@dataclass(frozen=True, kw_only=True)
class LfpcStudy:
    """What is compared, at which shares of the multiply-accumulates.

    `search` are the options of the search that differ from those of `Search`, and `search_epochs`
    its passes over the half of the images that the weights learn from. `even` leaves the same part
    of each group, by this criterion.
    """

    base: Base
    criteria: tuple[str, ...] = CRITERIA
    kept: tuple[float, ...] = (0.5, 0.3)
    seeds: tuple[int, ...] = (0, 1, 2)
    search: Mapping[str, Any] | None = None
    search_epochs: int = 6
    even: str = "l2"

    def trials(self) -> list[Trial]:
        """One trial for each share and seed; a search, and all that is compared by it."""
        return [
            Trial(
                f"{100 * kept:g}_{seed}",
                {
                    "network": self.base.network, "kept": kept, "seed": seed,
                    "images": self.base.images, "epochs": self.base.recipe.epochs,
                    "lr": self.base.recipe.lr, "search_epochs": self.search_epochs,
                    "search": dict(self.search or {}), "criteria": list(self.criteria),
                },
            )
            for seed in self.seeds for kept in self.kept
        ]  # fmt: skip

    @property
    def kinds(self) -> tuple[str, ...]:
        """All that is compared: by names of criteria, or of how they are chosen."""
        return (LEARNED, *self.criteria, RANDOM, EVEN, SEARCHED)


def lfpc_trial(study: LfpcStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Search once, then cut and train by each criterion; what is done already is not done again."""
    started = time.perf_counter()
    base, seed = study.base, trial.settings["seed"]
    anatomy = base.anatomy(base.model())
    decided, searched = _searched(study, trial, folder)
    results: dict[str, Any] = {}
    for kind, chosen in _plans(study, trial, anatomy, decided):
        path = folder / f"{kind}.json"
        if not path.exists():
            model = base.model()
            if kind == SEARCHED:
                model.load_state_dict(searched)
            told, slim = after_cut(base, model, chosen, seed, folder / kind)
            _write(path, _result(base, anatomy, chosen, slim, told, seed))
        results[kind] = json.loads(path.read_text("utf-8"))
    made, how = decided.made_by, json.loads((folder / SEARCH).read_text("utf-8"))
    return {
        "kinds": results, "sites": made["sites"], "notes": list(made["notes"]),
        "likeliest": made["learned"], "reached": made["reached"], "whole": made["whole"],
        "drawn": float(np.mean([m["drawn"] for m in how["moments"][-20:]])),
        "seconds": {"all": time.perf_counter() - started},
    }  # fmt: skip


def same_widths(anatomy: Anatomy, decided: Plan, by: Mapping[str, Scores]) -> Plan:
    """Return a plan that leaves as many channels of each group, chosen by other scores."""
    keep: dict[str, tuple[int, ...]] = {}
    for group, kept in decided.keep.items():
        values = by[group].values[group]
        order = np.argsort(values, kind="stable")  # of equal scores, the first goes first
        keep[group] = tuple(np.sort(order[len(order) - len(kept) :]).tolist())
    made = {"by": {group: scores.by for group, scores in by.items()}}
    return replace(decided, keep=keep, made_by={**made, "version": decided.made_by["version"]})


def sites_of(anatomy: Anatomy, sites: Iterable[str]) -> dict[str, str]:
    """Return for each group the site at which it is chosen what goes of it."""
    named = set(sites)
    site_of = {g.name: g.name for g in anatomy.prunable if g.name in named}
    ties = {g.tie: g.name for g in anatomy.prunable if g.tie is not None and g.name in named}
    return site_of | {g.name: ties[g.tie] for g in anatomy.prunable if g.tie in ties}


def _searched(
    study: LfpcStudy, trial: Trial, folder: Path
) -> tuple[Plan, dict[str, Any]]:  # fmt: skip
    """Search, unless that is done; return the plan, and the weights trained meanwhile."""
    base, seed, weights = study.base, trial.settings["seed"], folder / "searched.pt"
    if not weights.exists():
        model = base.model()
        decided, _ = search_criteria(
            model, base.anatomy(model), base.splits(seed),
            base.recipe.but(seed=seed, epochs=study.search_epochs),
            budget=f"macs={trial.settings['kept']}", criteria=study.criteria, combine=COMBINE,
            search=dict(study.search or {}), folder=folder / "search",
            resume=(folder / "search" / "run.toml").exists(), board=False, quiet=True,
        )  # fmt: skip
        save_plan(folder / PLAN, decided)
        (folder / "search" / SEARCH).replace(folder / SEARCH)
        with replacing(weights) as part:
            torch.save(model.state_dict(), part)
    return load_plan(folder / PLAN), torch.load(weights)


def _plans(
    study: LfpcStudy, trial: Trial, anatomy: Anatomy, decided: Plan
) -> Iterator[tuple[str, Plan]]:
    every = {name: score(anatomy, name, combine=COMBINE, quiet=True) for name in study.criteria}
    sites, groups = decided.made_by["sites"], [g.name for g in anatomy.prunable]
    site_of = sites_of(anatomy, sites)
    yield (
        LEARNED,
        same_widths(
            anatomy, decided, {g: every[sites[s]["criterion"]] for g, s in site_of.items()}
        ),
    )
    for name, scores in every.items():
        yield name, same_widths(anatomy, decided, dict.fromkeys(groups, scores))
    drawn = np.random.default_rng(trial.settings["seed"])
    names = dict(zip(sites, drawn.choice(list(study.criteria), len(sites)).tolist(), strict=True))
    yield RANDOM, same_widths(anatomy, decided, {g: every[names[s]] for g, s in site_of.items()})
    scores = score(anatomy, study.even, combine=COMBINE, quiet=True)
    budget = f"macs={trial.settings['kept']}"
    yield EVEN, plan(anatomy, budget, by=scores, rank="per_group", quiet=True)
    yield SEARCHED, decided


def _result(
    base: Base, anatomy: Anatomy, decided: Plan, slim: nn.Module, told: Mapping[str, str],
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        **costs(anatomy, decided), "answers": dict(told),
        "validation": base.validate(slim, seed),
        "held": sum(p.numel() for p in slim.parameters()),
    }  # fmt: skip


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(data) + "\n", "utf-8")
