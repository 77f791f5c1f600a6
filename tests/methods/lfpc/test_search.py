from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.lfpc.nets import labelled, made
from tests.refusals import said
from tonsor.errors import BudgetError, SelectionError, TonsorError
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.pools.drawn import held_already

NAN = float("nan")
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"rates": ()}, "rates are the parts that may go, rising"),
    ({"rates": 0.5}, "got 0.5"),
    ({"rates": "half"}, "got 'half'"),
    ({"rates": (0.5, 0.1)}, "got (0.5, 0.1)"),
    ({"rates": (0.1, 0.1)}, "rising"),
    ({"rates": (0.0, NAN, 0.5)}, "rising"),
    ({"rates": (-0.1, 0.5)}, "from at least 0"),
    ({"rates": (0.0, 1.0)}, "below 1"),
    ({"masks": "hard"}, "masks must be one of soft, straight, got 'hard'"),
    ({"turns": "criteria"}, "turns must be one of together, criteria first, rates first"),
    ({"begin": None}, "begin must be one of budget, even"),
    ({"end": "argmax"}, "end must be one of likeliest, expected"),
    ({"expectation": "mean"}, "expectation must be one of odds, drawn"),
    ({"warm": 0.1, "cold": 0.2}, "falls from warm=0.1 to cold=0.2"),
    ({"cold": 0}, "must end above 0"),
    ({"warm": "hot"}, "warm must be a number of at least 0, got 'hot'"),
    ({"warm": NAN}, "warm must be a number"),
    ({"tolerance": 1.5}, "tolerance must be a number from 0 to 1, got 1.5"),
    ({"tolerance": None}, "tolerance must be a number from 0 to 1, got None"),
    ({"weight": -1}, "weight must be a number of at least 0, got -1"),
    ({"weight": float("inf")}, "got inf"),
    ({"lr": True}, "lr must be a number of at least 0, got True"),
    ({"decay": "0"}, "decay must be a number"),
    ({"betas": (0.5,)}, "betas are two numbers from 0 to below 1, got (0.5,)"),
    ({"betas": (0.5, 1.0)}, "got (0.5, 1.0)"),
    ({"betas": 0.5}, "got 0.5"),
    ({"refresh": 0}, "refresh must be a whole number of at least 1, got 0"),
    ({"refresh": 1.5}, "refresh must be a whole number"),
    ({"round_to": True}, "round_to must be a whole number"),
    ({"among": 1}, "among must be a whole number of at least 2, got 1"),
    ({"exact": 1}, "exact must be True or False, got 1"),
    ({"train_weights": "no"}, "train_weights must be True or False, got 'no'"),
    ({"upper_tolerance": None}, "upper_tolerance must be True or False"),
]


@pytest.mark.parametrize(("options", "part"), WRONG, ids=lambda v: str(v) if v else "")
def test_what_is_no_choice_is_refused(options: Any, part: str) -> None:
    assert part in said(SelectionError, lambda: Search(**options))
    assert part in said(SelectionError, lambda: Search().but(**options))


def test_numbers_may_come_from_anywhere() -> None:
    found = Search(rates=[0, 0.5], betas=[0, 0.9], lr=np.float64(0.5), among=None)  # type: ignore[arg-type]
    assert found.rates == (0.0, 0.5)
    assert all(type(r) is float for r in found.rates)
    assert Search(rates=np.linspace(0, 0.5, 3)).rates == (0.0, 0.25, 0.5)  # type: ignore[arg-type]
    assert Search(among=2).but(among=None) == Search()
    assert Search(weight=0, tolerance=0, decay=0).weight == 0


@given(st.integers(1, 10**7))
def test_a_shorter_search_takes_longer_steps(steps: int) -> None:
    rate = Search().rate(steps)
    assert 0.001 <= rate <= 0.1
    assert rate >= Search().rate(steps + 1)
    assert rate * steps >= min(20.0, 0.1 * steps) * (1 - 1e-9)
    assert Search(lr=0.7).rate(steps) == 0.7


REFUSED: list[tuple[dict[str, Any], type[TonsorError], str]] = [
    ({"budget": "latency=50%"}, BudgetError, "no sum of what parts cost"),
    ({"budget": "spp_speedup=2x"}, BudgetError, "ask for macs=..."),
    ({"budget": "macs=1%"}, BudgetError, "Let rates go further, or keep more"),
    ({"budget": "macs=90%", "search": Search(rates=(0.4, 0.5))}, BudgetError, "begin at 0"),
    ({"criteria": ()}, SelectionError, "criteria is a list"),
    ({"criteria": "l1"}, SelectionError, "criteria is a list"),
    ({"criteria": ("l1", "l1")}, SelectionError, "may be there once, got l1, l1"),
    ({"criteria": ("l1", "no such")}, SelectionError, "no criterion is called 'no such'"),
    ({"steps": 0}, SelectionError, "at least 1, got 0"),
    ({"steps": 2.5}, SelectionError, "got 2.5"),
    ({"choice": "any"}, SelectionError, "choice is 'learned', 'random'"),
    ({"choice": {"two*": "l1"}}, SelectionError, "no criterion for 'one.weight[0]'"),
    ({"choice": {"*": "lp"}}, SelectionError, "none of l1, l2, geometric_median"),
    ({"keep": ["*"]}, SelectionError, "no group of channels of this model may go"),
    ({"batches": iter([])}, SelectionError, "a generator is spent after one"),
]


@pytest.mark.parametrize(("options", "error", "part"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_can_not_be_searched_is_refused_and_no_mask_is_left(
    options: Any, error: Any, part: str
) -> None:
    net, anatomy = made("normed")
    given: dict[str, Any] = {"budget": "macs=50%", "batches": labelled(1), "steps": 5} | options
    assert part in said(error, lambda: LearnedCriteria(net, anatomy, **given))
    assert held_already(net) is None


def test_what_is_given_is_taken_by_the_first_pattern_that_fits() -> None:
    net, anatomy = made("normed")
    method = LearnedCriteria(
        net, anatomy, budget="macs=50%", batches=labelled(1), steps=5,
        choice={"two*": "l1", "*": "geometric_median"},
    )  # fmt: skip
    assert method.sampler.odds().criteria.argmax(-1).tolist() == [2, 0]
    method.release()


def test_a_random_choice_is_that_of_the_seed() -> None:
    found = []
    for seed in (0, 0, 1, 2, 3):
        net, anatomy = made("resnet20")
        method = LearnedCriteria(
            net, anatomy, budget="macs=50%", batches=labelled(1), steps=5, choice="random",
            seed=seed,
        )  # fmt: skip
        odds = method.sampler.odds().criteria
        assert bool((odds.sum(-1) == 1).all())
        found.append(tuple(odds.argmax(-1).tolist()))
        method.release()
    assert found[0] == found[1]
    assert len(set(found)) == 4
    assert all(len(set(f)) > 1 for f in found)


def test_even_odds_or_those_of_the_budget() -> None:
    for begin in ("even", "budget"):
        net, anatomy = made("resnet20")
        method = LearnedCriteria(
            net, anatomy, budget="macs=70%", batches=labelled(1), steps=5,
            search=Search(begin=begin),  # type: ignore[arg-type]
        )  # fmt: skip
        odds, sites = method.sampler.odds(), method.sites
        expected = method.pools.expected("macs")(sites.masks(odds.criteria, odds.rates))
        off = abs(float(expected.detach()) / method.target - 1)
        if begin == "budget":
            assert off < 1e-6
            assert bool((odds.rates == odds.rates[0]).all())
        else:
            assert off > 0.05
            assert odds.rates.flatten().tolist() == pytest.approx([1 / 8] * odds.rates.numel())
        method.release()
