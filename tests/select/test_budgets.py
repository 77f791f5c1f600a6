"""Budgets: what can be asked for, that it is counted right, and that it is met exactly."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tonsor
from tests.laws.networks import examples
from tonsor.cost.conventions import CONVENTIONS
from tonsor.errors import BudgetError, SelectionError
from tonsor.select.budget import Budget, as_budget, is_speedup, targets
from tonsor.select.make import plan
from tonsor.select.rank import RANKS, Rank

from .nets import anatomy_of, drawn, nets, seeds, widths

SPEEDUPS = ("spp_speedup", "spp_speedup_fc")


def test_every_convention_can_be_budgeted() -> None:
    assert set(targets()) == {"macs", "params", "pieces", *CONVENTIONS}
    assert [t for t in targets() if is_speedup(t)] == list(SPEEDUPS)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("params=1.1G", Budget("params", amount=1_100_000_000)),
        ("pieces=640", Budget("pieces", amount=640)),
        ("kept=70%", Budget("pieces", kept=0.7)),
        ("spp_speedup=2", Budget("spp_speedup", amount=2)),
        ("2.5x spp_speedup_fc", Budget("spp_speedup_fc", amount=2.5)),
        ("spp_speedup=1", Budget("spp_speedup", amount=1)),
        ("spsrc_table=113.76", Budget("spsrc_table", amount=113.76)),
        ("MAC_conv=29%", Budget("mac_conv", kept=0.29)),
    ],
)
def test_a_budget_is_read_and_written(text: str, budget: Budget) -> None:
    assert as_budget(text) == budget
    assert as_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("spp_speedup=50%", "at least 1, such as 'spp_speedup=2x'; got 50%"),
        ("spp_speedup=0.5", "such as 'spp_speedup=2x'; got 0.5"),
        ("macs=2x", "can't read the budget"),
        ("macs=1e999", "can't read the budget"),
        ("piecs=50%", "did you mean 'pieces'?"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(text: str, hint: str) -> None:
    with pytest.raises((BudgetError, SelectionError)) as caught:
        as_budget(text)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    "budget",
    [Budget("macs"), Budget("macs", 0.5, 10), Budget("macs", amount=math.nan), Budget("spp", 0.5)],
)
def test_a_budget_made_by_hand_is_checked_too(budget: Budget) -> None:
    with pytest.raises((BudgetError, SelectionError)):
        as_budget(budget)


@given(st.integers(1, 999), st.integers(1, 10**12) | st.integers(1, 10**9).map(lambda n: 1000 * n))
def test_the_limit_of_a_whole_number_is_exact(thousandths: int, whole: int) -> None:
    budget = as_budget(f"macs={thousandths / 10}%")
    limit = budget.limit(whole)
    assert limit == whole * Fraction(thousandths, 1000) // 1


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_a_share_computed_from_a_cost_allows_that_cost(one: int, other: int) -> None:
    cost, whole = sorted((one, other))
    assert Budget("macs", kept=cost / whole).limit(whole) == cost


@examples(60)
@given(nets, st.sampled_from(targets()), st.floats(0.05, 1), st.sampled_from(RANKS), seeds)
def test_a_plan_costs_what_it_says_and_never_more_than_it_may(
    net: str, target: str, share: float, rank: Rank, seed: int
) -> None:
    anatomy = anatomy_of(net)
    if target == "spsrc_table" and anatomy.cost.total(target) < 1:
        return  # too small to be counted in units of a thousand million
    if is_speedup(target) and not math.isfinite(float(anatomy.cost.total(target))):
        return  # no convolution to begin with
    asked = Budget(target, amount=1 / share) if is_speedup(target) else Budget(target, kept=share)
    scores = drawn(anatomy, seed)
    try:
        decided = plan(anatomy, asked, by=scores, rank=rank)
    except BudgetError as error:
        if error.minimum is None:  # none of it is in the model
            assert anatomy.cost.total(target) == 0
            return
        least = min(1.0, error.minimum * (1 + 1e-12))
        again = Budget(target, amount=1 / least) if is_speedup(target) else Budget(target, least)
        assert plan(anatomy, again, by=scores, rank=rank).made_by["reached"]
        return
    made, cost = decided.made_by, anatomy.cost
    if target == "pieces":
        total = sum(widths(anatomy, decided).values())
    else:
        total = (
            cost.meter(target)(decided.counts)
            if target in ("macs", "params")
            else cost.total(target, decided.counts)
        )
    assert made["reached"] == total
    if is_speedup(target):
        assert made["limit"] == 1 / share
        assert total >= made["limit"] * (1 - 1e-12)
        assert made["met"] == (total <= made["limit"] / 0.995)
        assert made["least"] >= total
    else:
        assert total <= made["limit"] <= made["whole"] * share
        assert made["met"] == (total >= made["limit"] * 0.995)
        assert made["least"] <= total


@pytest.mark.parametrize("target", ["macs", "pieces", "spp_speedup"])
def test_the_least_that_a_plan_names_can_be_asked_for_and_no_less(target: str) -> None:
    anatomy = anatomy_of("resnet20")
    start = Budget(target, amount=1) if is_speedup(target) else Budget(target, kept=1)
    least = plan(anatomy, start).made_by["least"]
    reached = plan(anatomy, Budget(target, amount=least)).made_by
    assert reached["reached"] == least
    assert reached["met"]
    beyond = least * 1.01 if is_speedup(target) else least - 1
    with pytest.raises(BudgetError) as caught:
        plan(anatomy, Budget(target, amount=beyond))
    proposed = str(caught.value).partition("can be asked for is ")[2].partition(";")[0]
    assert plan(anatomy, proposed).keep


@examples(40)
@given(nets, st.sampled_from(("macs", "params", "pieces")), st.floats(0.05, 0.9))
def test_what_a_refusal_proposes_can_be_had(net: str, target: str, floor: float) -> None:
    anatomy = anatomy_of(net)
    with pytest.raises(BudgetError) as caught:
        plan(anatomy, f"{target}=0.1%", floor=floor)
    proposed = str(caught.value).partition("can be asked for is ")[2].partition(";")[0]
    decided = plan(anatomy, proposed, floor=floor)
    assert decided.made_by["reached"] == decided.made_by["least"]


def test_pieces_of_what_is_kept_do_not_count() -> None:
    anatomy = anatomy_of("resnet20")
    every = sum(g.size for g in anatomy.prunable)
    decided = plan(anatomy, "pieces=50%", keep=["conv1"])
    stem = anatomy.by_name["conv1.weight[0]"].size
    assert decided.made_by["whole"] == every - stem
    assert decided.made_by["reached"] == sum(widths(anatomy, decided).values()) - stem
    assert decided.made_by["reached"] == (every - stem) // 2


def test_a_target_that_the_model_has_nothing_of_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    anatomy = tonsor.inspect(net, torch.randn(1, 4))
    with pytest.raises(BudgetError, match="has no spp_speedup to begin with"):
        plan(anatomy, "spp_speedup=2x")


def test_a_report_shows_the_least_that_is_reachable() -> None:
    model, x = anatomy_of("resnet20").model, torch.randn(1, 3, 32, 32)
    _, report = tonsor.prune(model, x, budget="params=60%")
    least = report.plan.made_by["least"]
    share = least / report.params[0]
    assert f"the least reachable is params={least:,}, {share:.1%} of the whole" in str(report)
    _, report = tonsor.prune(model, x, budget="spp_speedup=1.5x")
    assert f"the least reachable is spp_speedup={report.plan.made_by['least']:,.6g}\n" in str(
        report
    )
