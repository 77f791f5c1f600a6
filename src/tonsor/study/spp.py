"""Columns that go by chance against columns and filters that go at once, on one trained network.

All trials reach the same speed-up, counted in the multiply-accumulates of convolutions, and train
on the same images for as many passes. What goes at once is chosen by its norm and cut first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.methods.spp import ByChance
from tonsor.methods.spp.run import interval_of
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.select.fibres.make import plan_columns
from tonsor.select.make import plan
from tonsor.study.base import Base, after_cut, tune
from tonsor.study.trials import Trial

Kind = Literal["spp", "spp l2", "spp size", "spp no recovery", "columns", "filters", "whole"]
KINDS: tuple[Kind, ...] = ("spp", "spp l2", "spp size", "columns", "filters")
PLAN = "plan.json"
AT_ONCE: Mapping[str, Any] = MappingProxyType({"warmup": 0.3, "clip": 1.0})
"""What networks that were cut at once are trained with besides: they have lost nearly all, and
without batch norm their first steps would throw them away."""

_OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "spp": {}, "spp l2": {"by": "l2"}, "spp size": {"scores": "size"},
        "spp no recovery": {"recovery": False},
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SppStudy:
    """What is compared, at which speed-ups.

    `extra` are kinds that are tried at the last speed-up only. The whole network is trained on for
    as long too, as training alone changes it.
    """

    base: Base
    kinds: tuple[Kind, ...] = KINDS
    speedups: tuple[float, ...] = (2, 4, 8)
    extra: tuple[Kind, ...] = ("spp no recovery",)
    seeds: tuple[int, ...] = (0, 1, 2)

    def trials(self) -> list[Trial]:
        """All trials, those of one seed together."""
        found: list[Trial] = []
        for seed in self.seeds:
            found += [self._trial(k, s, seed) for s in self.speedups for k in self.kinds]
            found += [self._trial(k, self.speedups[-1], seed) for k in self.extra]
            found.append(self._trial("whole", 1, seed))
        return found

    def _trial(self, kind: Kind, speedup: float, seed: int) -> Trial:
        return Trial(
            f"{kind.replace(' ', '-')}_{speedup:g}_{seed}",
            {
                "network": self.base.network, "kind": kind, "speedup": speedup, "seed": seed,
                "images": self.base.images, "epochs": self.base.recipe.epochs,
                "lr": self.base.recipe.lr,
            },
        )  # fmt: skip


def spp_trial(study: SppStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Prune one network in one way, and judge it."""
    kind = trial.settings["kind"]
    if kind in _OPTIONS:
        return by_chance_trial(study.base, trial, folder, _OPTIONS[kind])
    started = time.perf_counter()
    base = replace(study.base, recipe=study.base.recipe.but(**AT_ONCE))
    seed = trial.settings["seed"]
    model = base.model()
    anatomy = base.anatomy(model)
    decided = _at_once(anatomy, kind, _budget(trial), seed)
    told, slim = after_cut(base, model, decided, seed, folder)
    return _result(anatomy, decided, slim, told, {}, folder, started)


def by_chance_trial(
    base: Base, trial: Trial, folder: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Train one network while columns go, cut it, which changes nothing, and judge it."""
    started = time.perf_counter()
    seed, model = trial.settings["seed"], base.model()
    anatomy = base.anatomy(model)
    chosen = {"interval": interval_of(base.recipe, len(base.splits(seed).train)), **options}
    method = ByChance(model, anatomy, budget=_budget(trial), seed=seed, **chosen)
    decided = tune(base, model, seed, folder, method)
    assert decided is not None
    slim = decided.apply(model, verify=False)
    proof = decided.prove(model, slim)
    told = {"trained": base.judge(model), "tuned": base.judge(slim)}
    moments = [[m.step, *(round(s, 4) for s in m.sparsity.values())] for m in method.history]
    more = {
        "proof": proof.error, "changed": told["trained"] != told["tuned"],
        "interval": method.interval, "layers": list(method.pools.there), "moments": moments,
        "updates": decided.made_by["updates"], "lost": decided.made_by["lost"],
        "notes": list(decided.made_by.get("notes", ())),
    }  # fmt: skip
    return _result(anatomy, decided, slim, told, more, folder, started)


def _result(
    anatomy: Anatomy, decided: Plan, slim: nn.Module, told: Mapping[str, str],
    more: Mapping[str, Any], folder: Path, started: float,
) -> dict[str, Any]:  # fmt: skip
    save_plan(folder / PLAN, decided)
    account, amounts = anatomy.cost_without(decided.drops, decided.fibres), decided.amounts
    return {
        "macs": [anatomy.cost.macs(), account.macs(amounts)],
        "params": [anatomy.cost.params(), account.params(amounts)],
        "speedup": account.total("spp_speedup", amounts, before=anatomy.cost), **more,
        "answers": told, "held": sum(p.numel() for p in slim.parameters()),
        "seconds": {"all": time.perf_counter() - started},
    }  # fmt: skip


def _budget(trial: Trial) -> str:
    return f"spp_speedup={trial.settings['speedup']}x"


def _at_once(anatomy: Anatomy, kind: str, budget: str, seed: int) -> Plan:
    if kind in ("filters", "whole"):
        return plan(anatomy, budget, by="l1", seed=seed, quiet=True)
    return plan_columns(anatomy, budget, by="l1", rank="per_layer", seed=seed, quiet=True)
