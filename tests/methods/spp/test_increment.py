from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.refusals import said
from tonsor.errors import SelectionError
from tonsor.methods.spp.increment import Increment

MOST = st.floats(0.001, 1)
CENTRE = st.floats(0.01, 0.99)
GOAL = st.floats(0.5, 5000)
SHAPE: Any = st.sampled_from(["exponential", "linear"])
EXACT = 1e-13


def at(increment: Increment, rank: float, goal: float) -> float:
    return float(increment(torch.tensor([rank], dtype=torch.float64), goal)[0])


@given(MOST, CENTRE, GOAL, SHAPE)
def test_it_goes_through_three_points(most: float, centre: float, goal: float, shape: Any) -> None:
    increment = Increment(most=most, centre=centre, shape=shape)
    assert at(increment, 0, goal) == most
    assert at(increment, increment.inflection(goal), goal) == pytest.approx(
        centre * most, rel=EXACT
    )
    assert abs(at(increment, goal, goal)) <= EXACT * most


@given(MOST, CENTRE, GOAL, SHAPE, st.floats(0, 1))
def test_it_is_symmetric_about_its_centre(
    most: float, centre: float, goal: float, shape: Any, part: float
) -> None:
    increment = Increment(most=most, centre=centre, shape=shape)
    middle = increment.inflection(goal)
    away = part * middle
    both = at(increment, middle - away, goal) + at(increment, middle + away, goal)
    assert both == pytest.approx(2 * centre * most, abs=EXACT * most)


@given(MOST, CENTRE, GOAL, SHAPE, st.lists(st.floats(0, 3), min_size=2, max_size=20))
def test_it_falls_and_is_negative_beyond_the_goal(
    most: float, centre: float, goal: float, shape: Any, parts: list[float]
) -> None:
    increment = Increment(most=most, centre=centre, shape=shape)
    ranks = torch.tensor(sorted(parts), dtype=torch.float64) * goal
    change = increment(ranks, goal)
    steps = change.diff()
    apart = (ranks.diff() > 1e-3 * goal) & (change[:-1] > -1)
    assert bool((steps <= EXACT * most).all())
    assert bool((steps[apart] < 0).all())
    assert bool((change[ranks > goal * 1.001] < 0).all())
    assert bool((change[ranks < goal * 0.999] > 0).all())


@given(MOST, CENTRE, GOAL, st.floats(0, 4))
def test_it_is_the_published_formula(most: float, centre: float, goal: float, part: float) -> None:
    rank = part * goal
    alpha = (math.log(2) - math.log(centre)) / goal
    middle = -math.log(centre) / alpha
    if rank <= middle:
        wanted = most * math.exp(-alpha * rank)
    else:
        wanted = 2 * centre * most - most * math.exp(-alpha * (2 * middle - rank))
    increment = Increment(most=most, centre=centre)
    assert increment.inflection(goal) == pytest.approx(middle, rel=1e-12)
    assert at(increment, rank, goal) == pytest.approx(max(wanted, -1.0), rel=1e-9, abs=1e-12)


@given(MOST, CENTRE, GOAL, st.floats(0, 2))
def test_a_straight_line_goes_from_the_most_to_nothing(
    most: float, centre: float, goal: float, part: float
) -> None:
    change = at(Increment(most=most, centre=centre, shape="linear"), part * goal, goal)
    assert change == pytest.approx(most * (1 - part), abs=1e-12)


@given(MOST, CENTRE, GOAL, SHAPE, st.floats(0, 3))
def test_without_recovery_what_is_negative_is_nothing(
    most: float, centre: float, goal: float, shape: Any, part: float
) -> None:
    change = at(Increment(most=most, centre=centre, shape=shape), part * goal, goal)
    without = Increment(most=most, centre=centre, shape=shape, recovery=False)
    assert at(without, part * goal, goal) == max(0.0, change)


@given(MOST, CENTRE, GOAL, SHAPE, st.floats(1, 1e300))
def test_it_stays_finite_however_far_away(
    most: float, centre: float, goal: float, shape: Any, rank: float
) -> None:
    assume(rank > goal)
    change = Increment(most=most, centre=centre, shape=shape)(torch.tensor([rank, math.inf]), goal)
    assert change.isfinite().all()
    assert bool((change >= -1).all())
    assert float(change[1]) == -1


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
def test_ranks_of_any_kind_give_float64(dtype: torch.dtype) -> None:
    change = Increment()(torch.arange(20).to(dtype), 15.0)
    assert change.dtype == torch.float64
    assert torch.equal(change, Increment()(torch.arange(20).double(), 15.0))


@pytest.mark.parametrize(
    ("options", "goal", "words"),
    [
        ({"most": 0.0}, 1.0, "most=0.0"),
        ({"most": 1.5}, 1.0, "most=1.5"),
        ({"most": math.nan}, 1.0, "most=nan"),
        ({"centre": 0.0}, 1.0, "centre=0.0"),
        ({"centre": 1.0}, 1.0, "centre=1.0"),
        ({"shape": "square"}, 1.0, "choose one of exponential, linear"),
        ({}, 0.0, "goal=0.0"),
        ({}, -3.0, "goal=-3.0"),
        ({}, math.inf, "goal=inf"),
        ({"shape": "linear"}, math.nan, "goal=nan"),
    ],
)
def test_values_without_sense_are_refused(options: dict[str, Any], goal: float, words: str) -> None:
    assert words in said(SelectionError, lambda: Increment(**options)(torch.arange(3), goal))
    if not options:
        assert words in said(SelectionError, lambda: Increment().inflection(goal))
