from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.methods.lfpc.nets import labelled, made
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.lfpc.decide import Aim, Decided, decide
from tonsor.methods.lfpc.sampler import Drawn
from tonsor.methods.lfpc.sites import Kept, Sites

RATES = (0.0, 0.25, 0.5, 0.75)
GRID = Search(rates=RATES, exact=False)


@dataclass(frozen=True)
class Case:
    """Layers in a row, each of which costs so much for each of its inputs and outputs."""

    sites: Sites
    weights: tuple[int, ...]
    odds: Drawn
    target: float
    tolerance: float

    @staticmethod
    def of(seed: int, tolerance: float, layers: int) -> Case:
        chance = random.Random(seed)
        there = {str(i): torch.ones(chance.randint(2, 20), dtype=torch.bool) for i in range(layers)}
        pools: Any = SimpleNamespace(there=there, tied=[{n: 1} for n in there])
        sites = Sites(pools, 2, RATES)
        generator = torch.Generator().manual_seed(seed)
        sites.rank([torch.rand(2, len(t), generator=generator) for t in there.values()])
        weights = tuple(chance.randint(1, 9) for _ in range(layers + 1))
        logits = [2 * torch.randn(layers, n, generator=generator).double() for n in (2, 4)]
        odds = Drawn(*(x.softmax(-1) for x in logits))
        whole = _chain(weights, [s.steps for s in sites.every])
        least = _chain(weights, [s.left[-1] for s in sites.every])
        target = least + chance.random() * (whole - least)
        return Case(sites, weights, odds, target, tolerance)

    def cost(self, left: Any) -> float:
        return _chain(self.weights, left)

    def of_rates(self, rates: Any) -> float:
        return self.cost([s.left[k] for s, k in zip(self.sites.every, rates, strict=True)])

    @property
    def aim(self) -> Aim:
        def cost(kept: Kept) -> float:
            return self.cost([int(k.sum()) for k in kept])

        return Aim(cost, cost, self.target, self.tolerance)

    def fits(self, cost: float) -> bool:
        return abs(cost - self.target) <= self.tolerance * self.target * (1 + 1e-12)

    @property
    def likeliest(self) -> list[int]:
        return [max(range(4), key=lambda k, r=row: r[k]) for row in self.odds.rates.tolist()]

    def decided(self, how: Search = GRID) -> Decided:
        return decide(self.sites, self.odds, self.aim, how)


def _chain(weights: Any, counts: Any) -> float:
    return float(
        sum(w * a * b for w, (a, b) in zip(weights, itertools.pairwise([3, *counts, 2]),
                                           strict=True))
    )  # fmt: skip


def cases(least: int, most: int, *tolerances: float) -> Any:
    return st.builds(
        Case.of, st.integers(0, 10**6), st.sampled_from(tolerances), st.integers(least, most)
    )


def sound(case: Case, made: Decided) -> None:
    """The criteria are the likeliest, and what is told is what is."""
    assert made.criteria == tuple(
        max(range(2), key=lambda s, r=row: r[s]) for row in case.odds.criteria.tolist()
    )
    assert made.cost == case.cost(made.left)
    assert [int(k.sum()) for k in made.kept] == list(made.left)
    mine = case.sites.kept(made.criteria, made.left)
    assert all(torch.equal(a, b) for a, b in zip(made.kept, mine, strict=True))


@settings(max_examples=60)
@given(cases(1, 5, 0.05, 0.1, 0.3))
def test_what_is_likeliest_stays_where_it_is_near_enough(case: Case) -> None:
    wanted = [s.left[k] for s, k in zip(case.sites.every, case.likeliest, strict=True)]
    made = case.decided()
    sound(case, made)
    assert made.learned == case.cost(wanted)
    if case.fits(made.learned):
        assert list(made.left) == wanted
        assert made.moved == 0
    else:
        assert made.moved > 0 or abs(made.cost - case.target) <= abs(made.learned - case.target)


@settings(max_examples=60)
@given(cases(1, 2, 0.01, 0.05, 0.1))
def test_it_ends_within_the_tolerance_if_any_choice_of_rates_does(case: Case) -> None:
    every = [case.of_rates(k) for k in itertools.product(range(4), repeat=len(case.sites))]
    made = case.decided()
    assert case.fits(made.cost) == any(case.fits(c) for c in every)


@settings(max_examples=60)
@given(cases(2, 6, 0.0, 0.01, 0.05))
def test_where_it_ends_outside_no_other_rate_of_one_or_two_sites_is_nearer(case: Case) -> None:
    made = case.decided()
    sound(case, made)
    sites = case.sites.every
    assert all(n in s.left for n, s in zip(made.left, sites, strict=True))
    assert abs(made.cost - case.target) <= abs(made.learned - case.target)
    if case.fits(made.cost):
        return
    for one, two in itertools.combinations(range(len(sites)), 2):
        for a, b in itertools.product(sites[one].left, sites[two].left):
            left = [*made.left]
            left[one], left[two] = a, b
            assert abs(case.cost(left) - case.target) >= abs(made.cost - case.target)


def row_of(sites: int, likes: list[list[float]]) -> Case:
    """Sites that all cost the same, with these odds of rates."""
    pools: Any = SimpleNamespace(
        there={str(i): torch.ones(8, dtype=torch.bool) for i in range(sites)},
        tied=[{str(i): 1} for i in range(sites)],
    )
    rates = torch.tensor(likes, dtype=torch.float64)
    odds = Drawn(torch.ones(sites, 1, dtype=torch.float64), rates)
    case = Case(Sites(pools, 1, RATES), (), odds, 0.0, 0.01)
    return case


def flat(case: Case, target: float) -> Aim:
    def cost(kept: Kept) -> float:
        return float(sum(int(k.sum()) for k in kept))

    return Aim(cost, cost, target, case.tolerance)


def test_those_rates_change_that_odds_hold_to_the_least() -> None:
    sure, less, least = [0.9, 0.05, 0.03, 0.02], [0.5, 0.4, 0.05, 0.05], [0.4, 0.39, 0.11, 0.1]
    case = row_of(3, [less, sure, least])
    for target, left in ((22, (8, 8, 6)), (20, (6, 8, 6)), (18, (6, 8, 4)), (24, (8, 8, 8))):
        made = decide(case.sites, case.odds, flat(case, target), GRID)
        assert made.left == left
        assert made.moved == sum(n < 8 for n in left)
    up = row_of(3, [row[::-1] for row in (less, sure, least)])
    for target, left in ((8, (2, 2, 4)), (10, (4, 2, 4)), (6, (2, 2, 2))):
        assert decide(up.sites, up.odds, flat(up, target), GRID).left == left


def test_of_rates_that_leave_as_many_the_likeliest_is_meant() -> None:
    pools: Any = SimpleNamespace(
        there={n: torch.ones(2, dtype=torch.bool) for n in "ab"}, tied=[{"a": 1}, {"b": 1}]
    )
    sites = Sites(pools, 1, (0.0, 0.4, 0.5, 0.6))
    assert [s.left for s in sites.every] == [(2, 1, 1, 1)] * 2
    rates = torch.tensor([[0.5, 0.01, 0.45, 0.04], [0.5, 0.25, 0.15, 0.1]], dtype=torch.float64)
    case = Case(sites, (), Drawn(torch.ones(2, 1, dtype=torch.float64), rates), 3.0, 0.01)
    assert decide(sites, case.odds, flat(case, 3), GRID).left == (1, 2)


@settings(max_examples=60)
@given(cases(1, 6, 0.05, 0.3), st.sampled_from(["likeliest", "expected"]))
def test_exactly_is_just_within_and_all_give_about_the_same_part(case: Case, end: Any) -> None:
    before, made = case.decided(GRID.but(end=end)), case.decided(GRID.but(end=end, exact=True))
    sound(case, made)
    sites = case.sites.every
    assume(case.cost([1] * len(sites)) <= case.target)
    assert made.cost <= case.target
    assert (made.learned, made.moved) == (before.learned, before.moved)

    def times(factor: float) -> list[int]:
        parts = zip(sites, before.left, strict=True)
        return [min(s.steps, max(1, math.floor(factor * n))) for s, n in parts]

    # nothing is below what one factor leaves, which is the largest that fits
    factors = sorted({m / n for s, n in zip(sites, before.left, strict=True)
                      for m in range(1, s.steps + 1)})  # fmt: skip
    fit = [f for f in [0.0, *factors] if case.cost(times(f * (1 + 1e-12))) <= case.target]
    base = times(max(fit) * (1 + 1e-12))
    assert all(m >= b for m, b in zip(made.left, base, strict=True))
    if made.cost >= 0.995 * case.target:
        return
    for number, site in enumerate(sites):  # nothing more can be given back
        if made.left[number] < site.steps:
            more = [*made.left]
            more[number] += 1
            assert case.cost(more) > case.target


@settings(max_examples=60)
@given(cases(1, 6, 0.05))
def test_expected_is_the_mean_over_all_rates(case: Case) -> None:
    made = case.decided(GRID.but(end="expected"))
    sound(case, made)
    assert made.moved == 0
    means = [
        sum(p * m for p, m in zip(odds, site.left, strict=True))
        for site, odds in zip(case.sites.every, case.odds.rates.tolist(), strict=True)
    ]
    assert made.learned == case.cost([max(1, math.floor(m + 0.5)) for m in means])
    if case.fits(made.learned):
        assert all(abs(n - m) <= 0.5 + 1e-9 for n, m in zip(made.left, means, strict=True))
    elif case.cost([1] * len(means)) <= case.target:
        assert made.cost <= case.target
        assert made == replace(
            case.decided(GRID.but(end="expected", exact=True)), kept=made.kept
        )  # fmt: skip


@pytest.mark.parametrize("budget", ["macs=50%", "params=40%", "pieces=60%"])
@pytest.mark.parametrize("name", ["resnet20", "mixer", "dense"])
def test_the_end_of_a_search_is_within_the_budget(name: str, budget: str) -> None:
    for exact in (False, True):
        net, anatomy = made(name)
        method = LearnedCriteria(
            net, anatomy, budget=budget, batches=labelled(1), steps=5,
            search=Search(exact=exact, tolerance=0.1),
        )  # fmt: skip
        with torch.no_grad():
            method.sampler.beta += torch.randn(
                method.sampler.beta.shape, generator=torch.Generator().manual_seed(3)
            )  # fmt: skip
        target = method.target
        plan = reached(method)
        cost = (
            plan.made_by["reached"] if budget.startswith("pieces")
            else anatomy.cost.amount(budget.partition("=")[0], plan.counts)
        )  # fmt: skip
        assert cost == plan.made_by["reached"]
        if name == "resnet20":
            assert cost <= target if exact else abs(cost - target) <= 0.1 * target
        assert cost <= 1.1 * target


def reached(method: LearnedCriteria) -> Any:
    before: list[Tensor] = [t.clone() for t in method.pools.there.values()]
    plan = method.finish()
    assert all(torch.equal(a, b) for a, b in
               zip(before, method.pools.there.values(), strict=True))  # fmt: skip
    return plan
