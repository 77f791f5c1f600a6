from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tonsor.methods.lfpc.gumbel import gumbel, relaxed
from tonsor.methods.lfpc.sampler import Drawn, Sampler, tilt
from tonsor.methods.lfpc.search import Search

FAST = Search(lr=0.1)


def sampler(how: Search = FAST, steps: int = 20, **options: Any) -> Sampler:
    return Sampler(3, 3, 4, steps=steps, how=how, seed=5, **options)


def likes(criterion: int, rate: int) -> Any:
    """A loss that is less the more of one criterion and one rate is taken."""
    return lambda drawn: -drawn.criteria[:, criterion].sum() - drawn.rates[:, rate].sum()


def run(mine: Sampler, steps: int, loss: Any) -> list[Drawn]:
    found = []
    for _ in range(steps):
        mine.learn(lambda d: (found.append(d), loss(d))[1])
        mine.step()
    return found


@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_odds_go_to_what_makes_the_loss_less(masks: Any) -> None:
    mine = sampler(Search(lr=0.1, masks=masks), 100)
    assert mine.odds().criteria.flatten().tolist() == pytest.approx([1 / 3] * 9)
    run(mine, 100, likes(1, 2))
    odds = mine.odds()
    assert bool((odds.criteria[:, 1] > 0.9).all())
    assert bool((odds.rates[:, 2] > 0.9).all())
    assert odds.single().rates.tolist() == [[0.0, 0.0, 1.0, 0.0]] * 3


def test_a_step_is_one_of_adam_on_the_gradient_of_the_draw() -> None:
    how = Search(lr=0.03, decay=0.01, betas=(0.5, 0.9), warm=5.0, cold=0.1)
    mine, chance = sampler(how), torch.Generator().manual_seed(5)
    theta = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    beta = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([theta, beta], lr=0.03, betas=(0.5, 0.9), weight_decay=0.01)
    for step in range(6):
        heat = 5.0 + (0.1 - 5.0) * step / 19
        assert mine.temperature == pytest.approx(heat)
        c = relaxed(theta, heat, gumbel((3, 3), chance))
        r = relaxed(beta, heat, gumbel((3, 4), chance))
        loss = (c[:, 0] * r[:, 1]).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        told = mine.learn(lambda d: (d.criteria[:, 0] * d.rates[:, 1]).sum())
        mine.step()
        assert told == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(mine.theta, theta)
    torch.testing.assert_close(mine.beta, beta)


def test_it_is_cold_at_the_last_step() -> None:
    mine = sampler(Search(warm=3, cold=0.5), 4)
    heats = []
    for _ in range(4):
        heats.append(mine.temperature)
        run(mine, 1, likes(0, 0))
    assert heats == pytest.approx([3, 3 - 2.5 / 3, 3 - 5 / 3, 0.5])
    assert sampler(Search(warm=3, cold=0.5), 1).temperature == 3


@pytest.mark.parametrize(("turns", "first", "second"), [
    ("together", (True, True), (True, True)),
    ("criteria first", (True, False), (False, True)),
    ("rates first", (False, True), (True, False)),
])  # fmt: skip
def test_turns_are_taken(turns: Any, first: Any, second: Any) -> None:
    mine = sampler(FAST.but(turns=turns))
    for moves in (first, second):
        before = mine.theta.detach().clone(), mine.beta.detach().clone()
        run(mine, 10, likes(1, 2))
        changed = not torch.equal(mine.theta, before[0]), not torch.equal(mine.beta, before[1])
        assert changed == moves


@pytest.mark.parametrize("turns", ["together", "criteria first", "rates first"])
def test_given_criteria_stay_and_rates_are_learned_all_the_same(turns: Any) -> None:
    given = torch.eye(3, dtype=torch.float64)
    mine, free = sampler(FAST.but(turns=turns), fixed=given), sampler(FAST.but(turns=turns))
    drawn = run(mine, 20, likes(1, 2))
    others = run(free, 20, likes(1, 2))
    assert all(torch.equal(d.criteria, given) for d in drawn)
    assert not mine.theta.any()
    assert torch.equal(mine.odds().criteria, given)
    assert torch.equal(mine.beta, free.beta)  # for chance is the same
    assert torch.equal(drawn[-1].rates, others[-1].rates)
    assert bool((mine.odds().rates[:, 2] > 0.4).all())


@pytest.mark.parametrize("options", [{}, {"masks": "straight", "among": 2}])
def test_it_goes_on_from_where_it_was(options: Any) -> None:
    whole, begun = sampler(FAST.but(**options)), sampler(FAST.but(**options))
    run(begun, 7, likes(1, 2))
    state = copy.deepcopy(begun.state_dict())
    run(begun, 3, likes(0, 0))  # what was returned does not change with it
    other = sampler(FAST.but(**options), begin=torch.ones(4))
    other.load_state_dict(state)
    drawn = run(whole, 20, likes(1, 2))[7:]
    for mine, wanted in zip(run(other, 13, likes(1, 2)), drawn, strict=True):
        assert torch.equal(mine.criteria, wanted.criteria)
        assert torch.equal(mine.rates, wanted.rates)
    assert torch.equal(other.theta, whole.theta)
    assert torch.equal(other.beta, whole.beta)


@given(
    st.lists(st.floats(0, 0.9), min_size=2, max_size=6, unique=True),
    st.floats(0.02, 0.98), st.integers(1, 3),
)  # fmt: skip
def test_a_search_begins_where_the_budget_is_expected(
    rates: list[float], part: float, power: int
) -> None:
    values = torch.tensor(sorted(rates), dtype=torch.float64)

    def cost(odds: Tensor) -> float:
        return float(((1 - values) * odds).sum()) ** power

    ends = [(1 - float(values[i])) ** power for i in (-1, 0)]
    target = ends[0] + part * (ends[1] - ends[0])
    begin = tilt(tuple(values.tolist()), cost, target)
    odds = begin.softmax(-1)
    assert cost(odds) == pytest.approx(target, rel=1e-6)
    # of all odds with such a mean, those that are most even have logits in one line
    slopes = [
        float((b[1] - a[1]) / (b[0] - a[0]))
        for a, b in itertools.pairwise(zip(values, begin, strict=True)) if b[0] - a[0] > 1e-6
    ]  # fmt: skip
    assert slopes == pytest.approx(slopes[:1] * len(slopes), rel=1e-6, abs=1e-9)
