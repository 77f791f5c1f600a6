"""Budgets, names and options that make no sense: each is refused with a way out."""

from itertools import product
from typing import Any

import pytest
import torch

import tonsor
from tonsor.api import Anatomy, inspect, plan
from tonsor.errors import BudgetError, SelectionError, TonsorError

from .refusals import Net, said


@pytest.fixture
def anatomy() -> Anatomy:
    return inspect(Net(), torch.randn(2, 8))


# ---------------------------------------------------------------- budgets


def test_a_budget_out_of_reach_says_what_is_in_reach_and_what_holds_the_rest(
    anatomy: Anatomy,
) -> None:
    with pytest.raises(BudgetError) as caught:
        plan(anatomy, "macs=1%")
    error, text = caught.value, str(caught.value)
    assert error.minimum is not None
    assert 0.01 < error.minimum < 0.5
    assert f"{error.minimum:.1%}" in text
    assert "an axis of the input" in text
    assert "first.weight[1]" in text
    again = plan(anatomy, tonsor.macs(error.minimum + 0.01))
    assert again.made_by["reached"] <= again.made_by["limit"]


def test_the_budget_that_the_message_proposes_can_be_met(anatomy: Anatomy) -> None:
    text = said(BudgetError, lambda: plan(anatomy, "params=1%"))
    proposed = text.partition("can be asked for is ")[2].partition(";")[0]
    assert proposed.startswith("params=")
    assert plan(anatomy, proposed).keep


BUDGETS = {
    "macs=0%": "above 0 and at most 1",
    "macs=150%": "above 0 and at most 1",
    "macs=-5%": "can't read the budget",
    "macs=half": "can't read the budget",
    "macs=": "can't read the budget",
    "macs": "can't read the budget",
    "macs=nan": "can't read the budget",
    "mcas=50%": "did you mean 'macs'?",
    "memory=50%": "known: macs, params",
    "50%": "no budget is called '50%'",
    "": "no budget is called ''",
}


@pytest.mark.parametrize(
    ("budget", "hint"),
    [*BUDGETS.items(), ("macs=1.2.3%", "can't read the budget")],
)
def test_a_budget_that_makes_no_sense_is_refused(anatomy: Anatomy, budget: str, hint: str) -> None:
    assert hint in said(TonsorError, lambda: plan(anatomy, budget))


@pytest.mark.parametrize("budget", [0.5, 50, ("macs", 0.5), {"macs": 0.5}])
def test_a_budget_that_is_no_text_shows_how_to_write_one(anatomy: Anatomy, budget: Any) -> None:
    assert "tonsor.macs(0.5)" in said(BudgetError, lambda: plan(anatomy, budget))


@pytest.mark.parametrize("kept", [0, -0.1, 1.1, 50, float("nan")])
def test_a_fraction_out_of_range_is_refused(kept: float) -> None:
    for make in (tonsor.macs, tonsor.params):
        assert "above 0 and at most 1" in said(BudgetError, lambda m=make: m(kept))


def test_neither_budget_nor_ratios_is_refused(anatomy: Anatomy) -> None:
    assert "budget='macs=50%'" in said(BudgetError, lambda: plan(anatomy))


# ---------------------------------------------------------------- names and options


def test_a_name_that_is_nearly_right_is_recognised(anatomy: Anatomy) -> None:
    text = said(SelectionError, lambda: plan(anatomy, "macs=50%", keep=["frist"]))
    assert "'frist'" in text
    assert "did you mean first" in text


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *product(["keep", "ratios"], ["layer9.conv", "first.wieght", "*.conv"]),
        ("ratios", ""),
        ("keep", ""),
    ],
)
def test_names_of_nothing_are_refused(anatomy: Anatomy, option: str, name: str) -> None:
    given: dict[str, Any] = {"keep": [name]} if option == "keep" else {"ratios": {name: 0.5}}
    text = said(SelectionError, lambda: plan(anatomy, "macs=50%", **given))
    assert f"'{name}'" in text


def test_a_module_of_another_model_is_refused(anatomy: Anatomy) -> None:
    text = said(SelectionError, lambda: plan(anatomy, "macs=50%", keep=[Net().first]))
    assert "not part of the model" in text


@pytest.mark.parametrize("kept", [0, -0.5, 1.01, 50.0, float("nan")])
def test_ratios_out_of_range_are_refused(anatomy: Anatomy, kept: float) -> None:
    text = said(SelectionError, lambda: plan(anatomy, ratios={"first": kept}))
    assert "'first'" in text
    assert "above 0 and at most 1" in text


def test_more_pieces_than_there_are_can_not_be_kept(anatomy: Anatomy) -> None:
    text = said(SelectionError, lambda: plan(anatomy, ratios={"first": 17}))
    assert "17 of the 16 pieces of 'first.weight[0]'" in text


def test_a_ratio_for_what_is_pinned_says_why_it_is(anatomy: Anatomy) -> None:
    text = said(SelectionError, lambda: plan(anatomy, ratios={"last": 0.5}))
    assert "'last' can't be given a ratio" in text
    assert "output" in text


OPTIONS = [
    ({"rank": "globl"}, "rank must be one of"),
    ({"rank": None}, "rank must be one of"),
    ({"round_to": 0}, "round_to must be a whole number"),
    ({"round_to": -8}, "round_to must be a whole number"),
    ({"round_to": 2.5}, "round_to must be a whole number"),
    ({"round_to": True}, "round_to must be a whole number"),
    ({"round_to": "8"}, "round_to must be a whole number"),
    ({"floor": 0}, "floor must be"),
    ({"floor": -1}, "floor must be"),
    ({"floor": 1.5}, "floor must be"),
    ({"floor": "10%"}, "floor must be"),
    ({"skew": "0"}, "skew must be"),
    ({"combine": "median"}, "combine must be"),
    ({"by": "rand"}, "did you mean random"),
    ({"by": "taylor-ish"}, "no criterion is called 'taylor-ish'"),
]
ODD_OPTIONS = [
    ({"floor": float("nan")}, "floor must be"),
    ({"floor": float("inf")}, "floor must be"),
    ({"by": None}, "criterion"),
    ({"by": 3}, "criterion"),
]


@pytest.mark.parametrize(("options", "hint"), [*OPTIONS, *ODD_OPTIONS], ids=str)
def test_options_that_make_no_sense_are_refused(
    anatomy: Anatomy, options: dict[str, Any], hint: str
) -> None:
    assert hint in said(SelectionError, lambda: plan(anatomy, "macs=50%", **options))


def test_explaining_an_unknown_name_proposes_a_known_one(anatomy: Anatomy) -> None:
    assert "did you mean second" in said(SelectionError, lambda: anatomy.explain("secnd"))
