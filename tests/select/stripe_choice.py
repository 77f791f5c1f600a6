"""What the tests of choosing fibres share: scores, and what a plan has come to."""

from __future__ import annotations

import numpy as np

from tests.families.stripe_nets import Seen
from tonsor.criteria.score import Scores
from tonsor.fibres import FibreMask
from tonsor.plans import Plan


def scores_of(it: Seen, seed: int, levels: int = 10**6) -> Scores:
    """Scores at random, many of them equal if there are few levels."""
    rng = np.random.default_rng(seed)
    return Scores(
        {x.name: rng.integers(1, levels + 1, x.size) / levels for x in it.layers.free}, "mine"
    )


def masks_of(it: Seen, plan: Plan) -> dict[str, FibreMask]:
    """Which fibres of each layer a plan keeps; of layers in blocks that go, none."""
    cut = plan.cut()
    found = {}
    for layer in it.layers.free:
        mask = np.ones((layer.rows, layer.positions), dtype=np.bool_)
        if layer.weight in cut.fibres:
            mask = cut.fibres[layer.weight].mask
        dim = 0 if layer.kind == "stripes" else 1
        if (kept := (cut.keep.get(layer.weight) or (None, None))[dim]) is not None:
            mask[sorted({*range(layer.rows)} - {*kept})] = False
        if any(layer.name.startswith(f"{d.name}.") for d in plan.drops):
            mask[:] = False
        found[layer.name] = mask
    return found


def amount(it: Seen, plan: Plan, target: str) -> float:
    if target == "pieces":
        return sum(int(m.sum()) for m in masks_of(it, plan).values())
    account = it.anatomy.cost_without(plan.drops, plan.fibres)
    if target in ("params", "macs"):
        return account.meter(target)(plan.amounts)
    return account.total(target, plan.amounts, before=it.anatomy.cost)
