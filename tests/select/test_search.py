"""The search for a latency, with a clock that is simulated: noise, steps, and what it ends in."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.networks import examples
from tonsor.select.search import LOOSER, NEAR, STEPS_TO_LEAST, TRIES, Found, search


class Clock:
    """A cost that rises with what is kept, in steps if wanted, read with noise."""

    def __init__(self, floor: float, power: float, steps: int, noise: float, seed: int) -> None:
        self.floor, self.power, self.steps, self.noise = floor, power, steps, noise
        self.random = random.Random(seed)
        self.quick: list[float] = []
        self.careful: list[tuple[float, float]] = []

    def true(self, kept: float) -> float:
        share = math.ceil(kept * self.steps) / self.steps if self.steps else kept
        return self.floor + (1 - self.floor) * share**self.power

    def __call__(self, kept: float, careful: bool) -> float:
        noise = self.noise / 2 if careful else self.noise
        cost = self.true(kept) * (1 + self.random.uniform(-noise, noise))
        if careful:
            self.careful.append((kept, cost))
        else:
            self.quick.append(kept)
        return cost


clocks = st.builds(
    Clock, st.floats(0, 0.8), st.floats(0.4, 2.5), st.sampled_from([0, 4, 10, 64]),
    st.sampled_from([0.0, 0.01, 0.05]), st.integers(0, 2**32),
)  # fmt: skip


def found(clock: Callable[[float, bool], float], goal: float, least: float) -> Found:
    return search(clock, goal, least=least, most=1.0, cost_of_most=1.0)


@examples(300)
@given(clocks, st.floats(0.05, 0.99), st.floats(0.01, 0.5))
def test_it_ends_and_what_it_says_was_measured(clock: Clock, goal: float, least: float) -> None:
    got = found(clock, goal, least)
    assert len(clock.quick) <= TRIES
    assert len(clock.careful) <= TRIES + STEPS_TO_LEAST + LOOSER
    assert (got.kept, got.cost) in clock.careful
    assert all(least <= kept < 1 for kept in clock.quick)
    assert got.met == (got.cost <= goal)
    if not got.met:
        assert got.kept == least


@examples(300)
@given(clocks, st.floats(0.05, 0.99), st.floats(0.01, 0.5))
def test_what_is_in_reach_is_found(clock: Clock, goal: float, least: float) -> None:
    got = found(clock, goal, least)
    if clock.true(least) * (1 + clock.noise) <= goal:
        assert got.met
    if clock.true(least) * (1 - clock.noise) > goal:
        assert not got.met


@examples(300)
@given(st.floats(0, 0.8), st.floats(0.4, 2.5), st.floats(0.05, 0.99), st.floats(0.01, 0.5))
def test_a_still_clock_is_met_nearly(floor: float, power: float, goal: float, least: float) -> None:
    clock = Clock(floor, power, 0, 0.0, 0)
    got = found(clock, goal, least)
    if got.met and got.kept > least:
        nearly = clock.true(min(1.0, got.kept + 0.02)) > goal
        assert got.cost >= (1 - NEAR) * goal or nearly


def test_a_dip_above_steps_is_taken_and_a_bump_below_does_no_harm() -> None:
    def staircase(kept: float, careful: bool) -> float:
        bump = 0.2 if 0.3 < kept < 0.4 else 0.0
        return 0.2 + 0.8 * kept + bump

    got = found(staircase, 0.7, 0.05)
    assert got.met
    assert 0.6 <= got.kept <= 0.625


def test_what_was_quickly_found_too_dear_is_looked_at_again() -> None:
    def gloomy(kept: float, careful: bool) -> float:
        return kept + (0.3 if kept > 0.4 and not careful else 0.0)

    got = found(gloomy, 0.6, 0.05)
    assert got.met
    assert got.kept > 0.4


def test_a_quick_success_that_does_not_hold_is_tightened() -> None:
    def hopeful(kept: float, careful: bool) -> float:
        return kept + (0.1 if careful else 0.0)

    got = found(hopeful, 0.5, 0.05)
    assert got.met
    assert got.kept == pytest.approx(0.4, abs=0.1)
    assert got.cost <= 0.5
