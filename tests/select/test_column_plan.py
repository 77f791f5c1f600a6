"""Which columns a plan keeps: budgets, thresholds, ranks, floors, and what went before."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tonsor
from tests.cost.by_hand import by_hand
from tests.families.blocks.check import count
from tests.families.column_nets import deadened, looked_at, seen, whole
from tests.families.stripe_nets import Seen, computed
from tests.refusals import said
from tests.select.stripe_choice import amount, masks_of, scores_of
from tonsor import zoo
from tonsor.criteria.score import Scores
from tonsor.errors import BudgetError, PlanError, SelectionError
from tonsor.families.columns.layers import find_columns
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan
from tonsor.select.budget import Budget, is_measured, is_speedup, targets
from tonsor.select.fibres.execution import fastest
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import plan_columns, plan_stripes
from tonsor.surgery.column_conv import ColumnConv

COUNTED = [t for t in targets() if not is_measured(t)]


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("target", COUNTED)
def test_a_budget_is_met(target: str, share: float) -> None:
    it = seen("resnet20")
    faster = is_speedup(target)
    asked = Budget(target, amount=1 / share) if faster else Budget(target, kept=share)
    plan = plan_columns(it.anatomy, asked)
    made, reached = plan.made_by, amount(it, plan, target)
    assert made["reached"] == reached
    assert (made["budget"], made["family"], made["by"]) == (str(asked), "columns", "l1")
    near = reached / made["limit"]
    assert made["met"] == (1 <= near <= 1 / 0.995 if faster else 0.995 <= near <= 1)
    assert made["met"] or target == "spsrc_table"  # which is rounded to few steps
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize("name", ["plain", "beside", "residual", "one dimension"])
@given(st.integers(0, 99), st.sampled_from([3, 10**6]), st.sampled_from(["macs", "pieces"]))
def test_no_column_goes_without_need(name: str, seed: int, levels: int, target: str) -> None:
    """What stays is the best, and with the best of what went the budget would not be met."""
    it = seen(name)
    by = scores_of(it, seed, levels)
    plan = plan_columns(it.anatomy, f"{target}=60%", by=by, rank="global")
    kept, made = masks_of(it, plan), plan.made_by
    went = {n: by.values[n].reshape(m.shape)[~m] for n, m in kept.items() if not m.all()}
    stay = {n: by.values[n].reshape(m.shape)[m] for n, m in kept.items()}
    best = max(v.max() for v in went.values())
    assert all(kept[n].sum() == 1 for n, v in stay.items() if v.min() < best)  # at the floor
    frame = Frame(it.anatomy, it.layers)
    assert frame.amount(kept, target) == made["reached"] <= made["limit"]
    name_, index = next(
        (n, int(i)) for n, m in kept.items()
        for i in np.flatnonzero(~m & (by.values[n].reshape(m.shape) == best))
    )  # fmt: skip
    kept[name_].reshape(-1)[index] = True
    assert frame.amount(kept, target) > made["limit"]


@pytest.mark.parametrize("target", ["macs", "params", "pieces", "spp_speedup"])
def test_what_is_out_of_reach_names_the_least(target: str) -> None:
    it = seen("twice")
    beyond = Budget(target, amount=1e6) if is_speedup(target) else Budget(target, kept=1e-6)
    with pytest.raises(BudgetError, match="can't be met by columns: the ") as caught:
        plan_columns(it.anatomy, beyond)
    least = caught.value.minimum
    assert least is not None
    plan = plan_columns(it.anatomy, Budget(target, amount=least))
    assert plan.made_by["reached"] == pytest.approx(least)
    assert [m.sum() for m in masks_of(it, plan).values()] == [1, 1]
    assert "at least 1 column of each layer" in str(caught.value)


def test_a_latency_is_no_budget() -> None:
    told = said(BudgetError, lambda: plan_columns(seen("plain").anatomy, "latency=50%"))
    assert "a latency can't be the budget of stripes or columns" in told


@given(
    st.integers(0, 99), st.floats(0, 1.1), st.sampled_from([1, 3, 0.25, 1000]),
    st.sampled_from(["plain", "residual", "gated"]),
)  # fmt: skip
def test_a_threshold_says_what_stays(seed: int, threshold: float, floor: float, name: str) -> None:
    it = seen(name)
    by = scores_of(it, seed, 50)
    plan = plan_columns(it.anatomy, threshold=threshold, by=by, rank="global", floor=floor)
    wanted, held = {}, 0
    for layer in it.layers.free:
        values = by.values[layer.name]
        order = sorted(range(layer.size), key=lambda i: (-values[i], i))
        stay = [i for i in order if values[i] > threshold]
        least = max(1, math.ceil(floor * layer.size) if floor < 1 else int(floor))
        more = order[: min(least, layer.size)]
        held += max(0, len(more) - len(stay))
        stay = max(stay, more, key=len)
        wanted[layer.name] = np.isin(np.arange(layer.size), stay).reshape(layer.inputs, -1)
    assert plan.cut() == Frame(it.anatomy, it.layers).plan(wanted, {}).cut()
    assert not plan.drops
    notes = " ".join(plan.made_by["notes"])
    assert (f"{held} columns below the threshold stay" in notes) == bool(held)


def test_a_score_is_the_norm_of_a_column() -> None:
    it = seen("plain")
    weight = it.model.body[3].weight.detach().double()
    norms = [
        float(weight[:, i, y, x].abs().sum())
        for i in range(6) for y in range(3) for x in range(3)
    ]  # fmt: skip
    limit = sorted(norms)[20]
    plan = plan_columns(it.anatomy, threshold=limit, rank="global", keep=["body.0"])
    assert plan.columns["body.3.weight"].mask.reshape(-1).tolist() == [n > limit for n in norms]


# ---------------------------------------------------------------- what stays, and what went before


def test_what_is_kept_loses_nothing() -> None:
    it = seen("residual")
    plan = plan_columns(it.anatomy, "pieces=40%", keep=["one", it.model.stem])
    assert plan.columns.keys() == {
        "two.conv1.weight", "two.conv2.weight", "two.around.weight"
    }  # fmt: skip
    assert not {n for n in plan.cut().keep if n.startswith(("one.", "stem."))}
    told = said(SelectionError, lambda: plan_columns(it.anatomy, "macs=50%", keep=["*"]))
    assert "no convolution of this model may lose columns: 'stem' stays: you asked" in told


def test_a_model_with_groups_only_says_why() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3))
    anatomy = tonsor.inspect(net, torch.randn(1, 4, 6, 6))
    told = said(SelectionError, lambda: plan_columns(anatomy, "macs=50%"))
    assert "'0' stays: it has groups, so that no column is one of all its filters" in told
    assert "'2' stays: it is transposed" in told


def earlier(it: Seen, kind: str) -> Plan:
    if kind == "blocks":
        return tonsor.plan_blocks(it.anatomy, remove=["one"])
    if kind == "channels":
        return tonsor.plan(it.anatomy, "pieces=75%", by="random")
    if kind == "stripes":
        rest = ["stem", "one", "two.conv2"]
        return plan_stripes(it.anatomy, "pieces=75%", by="random", keep=rest)
    return plan_columns(it.anatomy, "pieces=75%", by="random", keep=["two.conv1"])


@pytest.mark.parametrize("kind", ["channels", "blocks", "stripes", "columns", "all"])
@pytest.mark.parametrize("target", ["macs", "params", "pieces", "spp_speedup"])
def test_what_went_stays_gone_and_counts(kind: str, target: str) -> None:
    it = seen("residual")
    kinds = ["channels", "blocks", "stripes", "columns"] if kind == "all" else [kind]
    before = earlier(it, kinds[0])
    for more in kinds[1:]:
        before = before.merge(earlier(it, more))
    asked = Budget(target, amount=3) if is_speedup(target) else Budget(target, kept=0.4)
    plan = plan_columns(it.anatomy, asked, after=before)
    apart = before.diff(plan)
    assert not apart.only_first
    assert not apart.blocks_first
    assert plan.stripes.keys() == before.stripes.keys()
    slim = plan.apply(it.model)
    account = it.anatomy.cost_without(plan.drops, plan.fibres)
    assert account.params(plan.amounts) == count(slim)
    assert account.macs(plan.amounts) == by_hand(slim, it.x)
    if target == "macs":
        assert plan.made_by["reached"] == by_hand(slim, it.x) <= plan.made_by["limit"]
    elif target == "params":
        assert plan.made_by["reached"] == count(slim) <= plan.made_by["limit"]
    elif target == "pieces":
        left = sum(len(m.weight) for m in slim.modules() if isinstance(m, ColumnConv))
        left += sum(m.weight[0].numel() for m in slim.modules() if isinstance(m, nn.Conv2d))
        assert plan.made_by["reached"] == left <= plan.made_by["limit"]
    assert plan_from_json(plan_to_json(plan)) == plan


def test_a_layer_of_stripes_loses_no_columns() -> None:
    it = seen("residual")
    before = earlier(it, "stripes")
    plan = plan_columns(it.anatomy, "macs=50%", after=before)
    assert set(plan.stripes) == {"two.conv1.weight"}
    assert "two.conv1.weight" not in plan.columns
    back = plan_stripes(it.anatomy, "macs=45%", after=plan, keep=["stem"])
    assert back.columns.keys() == plan.columns.keys()
    assert said(PlanError, lambda: plan_columns(seen("plain").anatomy, "macs=50%", after=before))


# ---------------------------------------------------------------- whole stories


def test_half_of_the_columns_is_half_of_the_work() -> None:
    """A ConvNet that keeps so many columns of each layer, and loses no channel."""
    net: Any = zoo.build("convnet")
    it = looked_at(net, torch.randn(1, 3, 32, 32))
    assert [x.size for x in it.layers.free] == [75, 800, 800]
    for ratio, speedup, digits in ((0.5, 2.005, 3), (0.75, 4.03, 2), (0.875, 8.06, 2)):
        masks = whole(it)
        for layer in it.layers.free:
            gone = math.ceil(ratio * layer.size)
            spread = np.arange(layer.size).reshape(layer.positions, -1).T  # over all inputs
            masks[layer.name] = spread >= gone
        plan = Frame(it.anatomy, it.layers).plan(masks, {})
        assert not plan.keep
        account = it.anatomy.cost_without((), plan.fibres)
        found = account.total("spp_speedup", plan.amounts, before=it.anatomy.cost)
        assert round(found, digits) == speedup
        fc = net.linear.weight.numel()
        whole_macs, left = by_hand(net, it.x) - fc, by_hand(plan.apply(net), it.x) - fc
        assert found == pytest.approx(whole_macs / left)


def test_scores_of_equal_shares_are_quotas() -> None:
    """By ranks within each layer, each loses the same share."""
    it = looked_at(zoo.build("convnet"), torch.randn(1, 3, 32, 32))
    plan = plan_columns(it.anatomy, "pieces=50%", by="random", rank="per_layer")
    lost = {n: m.size - m.sum() for n, m in masks_of(it, plan).items()}
    assert all(abs(n - q) <= 1 for n, q in zip(lost.values(), (38, 400, 400), strict=True))


@pytest.mark.parametrize("name", ["resnet20", pytest.param("resnet56", marks=pytest.mark.slow),
                                  pytest.param("vgg16", marks=pytest.mark.slow)])  # fmt: skip
@pytest.mark.parametrize("budget", ["macs=50%", "macs=25%"])
def test_a_whole_story(tmp_path: Path, name: str, budget: str) -> None:
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    it = looked_at(zoo.build(name), x)
    plan = plan_columns(it.anatomy, budget)
    assert plan.made_by["met"]
    slim: Any = plan.apply(it.model)
    masks = masks_of(it, plan)
    wanted = computed(deadened(it, masks), x)
    assert (computed(slim, x) - wanted).abs().max() <= 1e-12 * wanted.abs().max().clamp(min=1)
    assert by_hand(slim, x) == plan.made_by["reached"] <= plan.made_by["limit"]
    measured, timings = fastest(slim, plan, x, rounds=1)
    assert {t.name for t in timings} == {n.removesuffix(".weight") for n in plan.columns}
    assert {t.kind for t in timings} == {"columns"}
    tonsor.save(tmp_path / "slim", slim, measured)
    again = tonsor.load(tmp_path / "slim", it.model)
    assert torch.equal(computed(again, x), computed(slim, x))
    runs = {n: m.run for n, m in again.named_modules() if isinstance(m, ColumnConv)}
    assert runs == {t.name: t.run for t in timings}
    assert "columns stay in" in str(measured)


def test_fastest_takes_the_model_of_its_plan_only() -> None:
    it = seen("plain")
    plan = plan_columns(it.anatomy, "macs=50%")
    other = plan_columns(it.anatomy, "macs=50%", by="random")
    told = said(PlanError, lambda: fastest(other.apply(it.model), plan, it.x, rounds=1))
    assert "give the plan that the model was cut by, and the slim model that it made" in told
    stripes = plan_stripes(it.anatomy, "macs=50%")
    assert said(PlanError, lambda: fastest(stripes.apply(it.model), plan, it.x, rounds=1))


def test_scores_are_input_after_input() -> None:
    """What has low scores at one input alone goes there, and the channel with it."""
    it = seen("plain")
    layers = find_columns(it.anatomy)
    values = {x.name: np.ones(x.size) for x in layers.free}
    values["body.3"] = np.repeat(np.arange(6.0), 9)
    plan = plan_columns(it.anatomy, threshold=0.5, by=Scores(values, "mine"), rank="global")
    assert plan.counts == {"body.0.weight[0]": 5}
    assert dict(plan.keep) == {"body.0.weight[0]": (1, 2, 3, 4, 5)}
    assert replace(plan, keep={}).columns == {}
