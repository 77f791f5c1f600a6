from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import said
from tonsor.errors import SelectionError
from tonsor.select.schedule import FORMS, Schedule, parse_schedule

counts = st.integers(1, 10**7)
smoothings = st.floats(0, 1, exclude_max=True, allow_subnormal=False)
schedules = st.one_of(
    st.just(Schedule("one-shot")),
    st.builds(
        Schedule, st.just("iterative"), every=counts, pieces=counts, smoothing=smoothings
    ),
    st.builds(
        Schedule, st.just("fraction"), every=counts, smoothing=smoothings,
        share=st.floats(1e-6, 0.999),
    ),
    st.builds(
        Schedule, st.just("ramp"), every=counts, rounds=counts, smoothing=smoothings,
        power=st.floats(0.1, 20),
    ),
    st.builds(Schedule, st.just("soft"), every=counts, smoothing=smoothings),
)  # fmt: skip


@given(schedules)
def test_what_is_said_is_read_back(schedule: Schedule) -> None:
    assert parse_schedule(str(schedule)) == schedule
    assert parse_schedule(schedule) is schedule


@pytest.mark.parametrize(
    ("text", "schedule"),
    [
        ("one-shot", Schedule("one-shot")),
        ("iterative:100/10", Schedule("iterative", every=10, pieces=100, smoothing=0.9)),
        ("iterative:5/2,smoothing=0", Schedule("iterative", every=2, pieces=5)),
        ("fraction:0.2/30", Schedule("fraction", every=30, share=0.2)),
        ("ramp:20/100", Schedule("ramp", every=100, rounds=20, power=3.0)),
        (
            " ramp:20/100 , power=1, smoothing=0.5",
            Schedule("ramp", every=100, rounds=20, power=1.0, smoothing=0.5),
        ),
        ("soft:79", Schedule("soft", every=79)),
    ],
)
def test_each_kind_is_read(text: str, schedule: Schedule) -> None:
    assert parse_schedule(text) == schedule
    assert isinstance(parse_schedule(text).every, int)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", FORMS["iterative"]),
        ("itertive:1/2", "did you mean 'iterative:PIECES/EVERY"),
        ("iterative", "write it as iterative:PIECES/EVERY"),
        ("iterative:100", "write it as iterative:PIECES/EVERY"),
        ("iterative:0/10", "pieces of the schedule 'iterative:0/10' must be a whole number"),
        ("iterative:1.5/10", "pieces"),
        ("iterative:1/2/3", "write it as"),
        ("iterative:nan/3", "pieces"),
        ("iterative:1/inf", "every"),
        ("one-shot:3", "write it as one-shot"),
        ("one-shot,smoothing=0.5", "it has none"),
        ("fraction:1/10", "share of the schedule 'fraction:1/10' must be above 0 and below 1"),
        ("ramp:3/2,power=0", "power"),
        ("ramp:3/2,power", "got ''"),
        ("soft:10,power=2", "'power=2' is no option of the schedule 'soft'; it has smoothing=0"),
        ("soft:10,smoothing=1", "smoothing of the schedule"),
        (7, "got 7"),
    ],
)
def test_what_can_not_be_read_is_told(text: object, words: str) -> None:
    assert words in said(SelectionError, lambda: parse_schedule(text))


@given(st.integers(1, 50), st.integers(0, 500))
def test_rounds_are_due_after_each_so_many_minibatches(every: int, step: int) -> None:
    schedule = Schedule("soft", every=every)
    assert schedule.due(step) == (step in range(every - 1, 501, every))
    assert not Schedule("one-shot").due(step)


@given(st.integers(1, 5000), st.integers(1, 300), st.data())
def test_pieces_are_counted_down_to_the_goal(whole: int, pieces: int, data: st.DataObject) -> None:
    goal = data.draw(st.integers(0, whole))
    schedule = Schedule("iterative", every=1, pieces=pieces)
    left, rounds = whole, 0
    while left > goal:
        left, rounds = schedule.leaves(left), rounds + 1
        assert left == whole - rounds * pieces
    assert schedule.rounds_for(whole, goal) == rounds


@given(st.integers(1, 2000), st.floats(0.01, 0.99))
def test_a_share_is_of_those_that_are_left(whole: int, share: float) -> None:
    schedule = Schedule("fraction", every=1, share=share)
    left, rounds = whole, 0
    while left > 1:
        after = schedule.leaves(left)
        assert after < left
        assert left - after == 1 or abs((left - after) - share * left) < 1
        left, rounds = after, rounds + 1
    assert schedule.rounds_for(whole, 1) == rounds


def test_a_tenth_of_thirty_is_three() -> None:
    assert parse_schedule("fraction:0.1/1").leaves(30) == 27
    assert parse_schedule("fraction:0.29/1").leaves(100) == 71  # 0.29 * 100 is 28.999999999999996


@given(st.integers(1, 40), st.floats(0.2, 6), st.floats(1, 1e9), st.floats(0.01, 0.99))
def test_a_ramp_falls_from_the_whole_to_the_goal(
    rounds: int, power: float, whole: float, kept: float
) -> None:
    schedule, goal = Schedule("ramp", every=1, rounds=rounds, power=power), whole * kept
    aims = [schedule.aims(t, whole, goal) for t in range(rounds + 1)]
    assert aims[0] == pytest.approx(whole)
    assert aims[-1] == pytest.approx(goal)
    assert aims == sorted(aims, reverse=True)
    steps = [a - b for a, b in pairwise(aims)]
    if power >= 1:  # ever smaller steps
        assert all(a >= b - 1e-6 * whole for a, b in pairwise(steps))
    assert schedule.rounds_for(1000, 500) == rounds
