"""Stripes against filters, and the filter skeleton against group lasso, on one trained network.

All trials leave as many multiply-accumulates and learn from the same images for as many passes. The
skeleton and the lasso lose stripes while they train; stripes and filters that are chosen at once,
by their norms, are cut first and trained on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.families.stripes.positions import positions
from tonsor.methods.swp import stripe_method
from tonsor.methods.swp.run import ramp_of
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.select.fibres.make import plan_stripes
from tonsor.select.make import plan
from tonsor.study.base import Base, after_cut, tune
from tonsor.study.trials import Trial

Kind = Literal["swp", "ones", "lasso", "relative lasso", "stripes", "filters", "slimmed+swp"]
KINDS: tuple[Kind, ...] = ("swp", "lasso", "relative lasso", "stripes", "filters")
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class SwpStudy:
    """What is compared, at which shares of the multiply-accumulates.

    `slimmed` is the share that filter pruning leaves before stripes go on from there.
    """

    base: Base
    kinds: tuple[Kind, ...] = KINDS
    kept: tuple[float, ...] = (0.5, 0.3)
    seeds: tuple[int, ...] = (0,)
    alpha: float = 1e-5
    lasso_alpha: float = 1e-4
    slimmed: float = 0.7
    on_from: tuple[float, ...] = (0.5,)
    every: int = 20

    def trials(self) -> list[Trial]:
        """All trials, those of one seed together."""
        found: list[Trial] = []
        for seed in self.seeds:
            found += [self._trial(k, kept, seed) for kept in self.kept for k in self.kinds]
            found += [self._trial("slimmed+swp", kept, seed) for kept in self.on_from]
        found += [self._trial("ones", kept, self.seeds[0]) for kept in self.on_from]
        return found

    def _trial(self, kind: Kind, kept: float, seed: int) -> Trial:
        return Trial(
            f"{kind.replace(' ', '-')}_{100 * kept:g}_{seed}",
            {
                "network": self.base.network, "kind": kind, "kept": kept, "seed": seed,
                "images": self.base.images, "epochs": self.base.recipe.epochs,
                "lr": self.base.recipe.lr,
                "alpha": self.lasso_alpha if kind.endswith("lasso") else self.alpha,
            },
        )  # fmt: skip


def swp_trial(study: SwpStudy, trial: Trial, folder: Path) -> dict[str, Any]:
    """Prune one network in one way, and judge it."""
    started = time.perf_counter()
    base, settings = study.base, trial.settings
    kind, seed, budget = settings["kind"], settings["seed"], f"macs={settings['kept']}"
    model = base.model()
    anatomy = base.anatomy(model)
    more: dict[str, Any] = {}
    if kind in ("filters", "stripes"):
        decided = _at_once(anatomy, kind, budget, seed)
        told, slim = after_cut(base, model, decided, seed, folder)
    elif kind == "slimmed+swp":
        first = _at_once(anatomy, "filters", f"macs={study.slimmed}", seed)
        told, slim = after_cut(base, model, first, seed, folder / "first")
        told = {f"slimmed_{name}": right for name, right in told.items()}
        inner = base.anatomy(slim)
        share = settings["kept"] * anatomy.cost.macs() / inner.cost.macs()
        after, slim, then, more = _trained(study, slim, inner, f"macs={share}", trial, folder)
        told |= then
        decided = after.rebase(first)
        more["slimmed"] = _costs(anatomy, first)
    else:
        decided, slim, told, more = _trained(study, model, anatomy, budget, trial, folder)
    save_plan(folder / PLAN, decided)
    return {
        **_costs(anatomy, decided), **more, "answers": told,
        "positions": positions(anatomy, decided), "gone": [d.name for d in decided.drops],
        "held": sum(p.numel() for p in slim.parameters()),
        "seconds": {"all": time.perf_counter() - started},
    }  # fmt: skip


def _at_once(anatomy: Anatomy, kind: str, budget: str, seed: int) -> Plan:
    if kind == "filters":
        return plan(anatomy, budget, by="l1", seed=seed, quiet=True)
    return plan_stripes(anatomy, budget, by="l2", seed=seed, quiet=True)


def _trained(
    study: SwpStudy, model: nn.Module, anatomy: Anatomy, budget: str, trial: Trial, folder: Path
) -> tuple[Plan, nn.Module, dict[str, str], dict[str, Any]]:
    """Train with a method that removes stripes; what is cut at the end computes the same."""
    base, settings = study.base, trial.settings
    lasso = settings["kind"].endswith("lasso")
    options: dict[str, Any] = {}
    if lasso:
        options["relative"] = settings["kind"] != "lasso"
    else:
        options["start"] = "ones" if settings["kind"] == "ones" else "norms"
    images = len(base.splits(settings["seed"]).train)
    method = stripe_method(
        model, anatomy, "lasso" if lasso else "swp", budget=budget, alpha=settings["alpha"],
        ramp=ramp_of(base.recipe, images), every=study.every, **options,
    )  # fmt: skip
    decided = tune(base, model, settings["seed"], folder, method)
    assert decided is not None
    slim = decided.apply(model, verify=False)
    proof = decided.prove(model, slim)
    told = {"trained": base.judge(model), "tuned": base.judge(slim)}
    moments = [[m.step, m.threshold, m.left, m.macs, m.params] for m in method.history]
    more = {
        "proof": proof.error, "changed": told["trained"] != told["tuned"],
        "threshold": method.course.threshold, "moments": moments,
        "notes": list(decided.made_by.get("notes", ())),
    }  # fmt: skip
    return decided, slim, told, more


def _costs(anatomy: Anatomy, decided: Plan) -> Mapping[str, Any]:
    account, amounts = anatomy.cost_without(decided.drops, decided.stripes), decided.amounts
    return {
        "macs": [anatomy.cost.macs(), account.macs(amounts)],
        "params": [anatomy.cost.params(), account.params(amounts)],
    }
