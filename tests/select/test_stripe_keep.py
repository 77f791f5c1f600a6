"""What a plan of stripes leaves alone: what is to be kept, and what an earlier plan has cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tonsor
from tests.families.blocks.check import count
from tests.families.stripe_nets import Seen, drawn, followed, seen
from tests.refusals import said
from tests.select.stripe_choice import amount, masks_of, scores_of
from tonsor.criteria.score import Scores
from tonsor.errors import PlanError, SelectionError
from tonsor.plans import Plan
from tonsor.select.budget import Budget, is_measured, is_speedup, targets
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import plan_stripes

COUNTED = [t for t in targets() if not is_measured(t)]


# ---------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    ("keep", "held"),
    [
        (["one.conv1"], {"one.conv1"}),
        (["one"], {"one.conv1", "one.conv2"}),
        (["*.conv2"], {"one.conv2", "two.conv2"}),
        (["stem.weight", "two.*"], {"stem", "two.conv1", "two.conv2"}),
        ("stem", {"stem"}),
    ],
)
def test_what_is_kept_loses_nothing(keep: Any, held: set[str]) -> None:
    it = seen("residual")
    plan = plan_stripes(it.anatomy, "pieces=30%", keep=keep)
    rest = {x.name for x in it.layers.free} - held
    assert {n.removesuffix(".weight") for n in plan.stripes} <= rest
    touched = {n.rpartition(".")[0] for n in plan.cut().keep}
    assert not touched & held
    assert masks_of(it, plan)[next(iter(held))].all()


def test_modules_are_kept_too() -> None:
    it = seen("residual")
    by_module = plan_stripes(it.anatomy, "pieces=60%", keep=[it.model.one, it.model.two.conv2])
    by_name = plan_stripes(it.anatomy, "pieces=60%", keep=["one", "two.conv2"])
    assert by_module.cut() == by_name.cut()


def test_a_kept_reader_keeps_its_channels() -> None:
    """Filters with nothing left would have gone, and what reads them would have shrunk."""
    it = seen("plain")
    rows = {x.name: np.repeat(np.arange(1.0, x.filters + 1), x.positions) for x in it.layers.free}
    by = Scores(rows, "rows")
    free = plan_stripes(it.anatomy, threshold=2.5, by=by, rank="global")
    assert free.counts == {"body.0.weight[0]": 4, "body.3.weight[0]": 2}
    held = plan_stripes(it.anatomy, threshold=2.5, by=by, rank="global", keep=["fc"])
    assert held.counts == {"body.0.weight[0]": 4}
    slim: Any = held.apply(it.model)
    assert slim.fc.in_features == 4
    assert [bin(r) != "0b0" for r in held.stripes["body.3.weight"].rows] == [
        False,
        False,
        True,
        True,
    ]


def test_names_that_are_nobodys_are_refused() -> None:
    it = seen("residual")
    told = said(SelectionError, lambda: plan_stripes(it.anatomy, "macs=50%", keep=["one.conv9"]))
    assert "nothing in the model is called 'one.conv9'; did you mean one.conv" in told
    told = said(SelectionError, lambda: plan_stripes(it.anatomy, "macs=50%", keep=["*"]))
    assert "'stem' stays: you asked to keep it" in told
    stranger = torch.nn.Conv2d(3, 3, 3)
    told = said(SelectionError, lambda: plan_stripes(it.anatomy, "macs=50%", keep=[stranger]))
    assert "is not part of the model" in told


# ---------------------------------------------------------------- what went before


def earlier(it: Seen, kind: str) -> Plan:
    if kind == "blocks":
        return tonsor.plan_blocks(it.anatomy, remove=["one"])
    if kind == "channels":
        return tonsor.plan(it.anatomy, "pieces=75%", by="random")
    return plan_stripes(it.anatomy, "pieces=75%", by="random")


@pytest.mark.parametrize("kind", ["channels", "blocks", "stripes", "all"])
@pytest.mark.parametrize("target", ["macs", "params", "pieces", "spp_speedup"])
def test_what_went_stays_gone_and_counts(kind: str, target: str) -> None:
    it = seen("residual")
    kinds = ["channels", "blocks", "stripes"] if kind == "all" else [kind]
    before = earlier(it, kinds[0])
    for more in kinds[1:]:
        before = before.merge(earlier(it, more))
    asked = Budget(target, amount=4) if is_speedup(target) else Budget(target, kept=0.25)
    plan = plan_stripes(it.anatomy, asked, after=before)
    apart = before.diff(plan)
    assert not apart.only_first
    assert not apart.blocks_first
    assert not {n: c for n, c in apart.stripes_first.items() if not _gone(plan, n)}
    assert plan.made_by["reached"] == pytest.approx(amount(it, plan, target))
    assert count(plan.apply(it.model)) < count(it.model)
    if not is_speedup(target):
        assert plan.made_by["reached"] <= plan.made_by["limit"]
    left = masks_of(it, before)
    for name, mask in masks_of(it, plan).items():
        assert not (mask & ~left[name]).any()


def _gone(plan: Plan, weight: str) -> bool:
    return any(weight.startswith(f"{d.name}.") for d in plan.drops)


@pytest.mark.parametrize("rank", ["normalised", "per_layer"])
def test_scores_of_what_went_count_for_nothing(rank: Any) -> None:
    it = seen("plain")
    before, by = followed(it, drawn(it.layers, 0, 0.6)), scores_of(it, 0).values
    left = masks_of(it, before)
    plans = [
        plan_stripes(it.anatomy, "pieces=30%", by=Scores(values, "mine"), rank=rank, after=before)
        for values in (by, {n: np.where(left[n].reshape(-1), v, 1e6) for n, v in by.items()})
    ]
    assert plans[0].cut() == plans[1].cut()
    if rank == "per_layer":
        shares = [m.sum() / left[n].sum() for n, m in masks_of(it, plans[0]).items()]
        assert shares == pytest.approx([27 / sum(m.sum() for m in left.values())] * 2, abs=0.05)


@pytest.mark.parametrize("target", ["macs", "params"])
def test_stripes_that_went_from_what_is_kept_now_count(target: str) -> None:
    it = seen("residual")
    before = followed(it, drawn(it.layers, 0, 0.5))
    plan = plan_stripes(it.anatomy, f"{target}=40%", after=before, keep=["two"])
    assert plan.stripes["two.conv1.weight"] == before.stripes["two.conv1.weight"]
    assert plan.made_by["reached"] == amount(it, plan, target) <= plan.made_by["limit"]


def test_the_earlier_plan_of_another_model_is_refused() -> None:
    it, other = seen("residual"), seen("plain")
    before = plan_stripes(other.anatomy, "macs=50%")
    assert said(PlanError, lambda: plan_stripes(it.anatomy, "macs=50%", after=before))


def test_stripes_of_dropped_blocks_are_no_pieces() -> None:
    it = seen("residual")
    frame = Frame(it.anatomy, it.layers)
    masks = {n: m.copy() for n, m in frame.start.items()}
    masks["one.conv1"][:] = False
    assert frame.amount(masks, "pieces") == sum(masks[n].sum() for n in masks if "one" not in n)
