from __future__ import annotations

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.nets import residual
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.methods.course import course_of, gone
from tonsor.select.schedule import parse_schedule


@cache
def anatomy() -> Anatomy:
    return residual()[1]


schedules = st.one_of(
    st.integers(1, 60).map(lambda k: f"iterative:{k}/1"),
    st.floats(0.05, 0.6).map(lambda p: f"fraction:{p}/1"),
    st.tuples(st.integers(1, 9), st.floats(0.5, 4)).map(lambda v: f"ramp:{v[0]}/1,power={v[1]}"),
)
budgets = st.tuples(
    st.sampled_from(["macs", "params", "pieces", "mac_conv"]), st.integers(30, 95)
).map(lambda v: f"{v[0]}={v[1]}%")


@settings(max_examples=40)
@given(schedules, budgets, st.integers(0, 10**6), st.sampled_from([1, 2, 4]))
def test_only_the_last_round_meets_the_budget_and_as_one_plan_would(
    schedule: str, budget: str, seed: int, round_to: int
) -> None:
    found = parse_schedule(schedule)
    course = course_of(anatomy(), budget, found, (), None, round_to=round_to, floor=1)
    before, number, over = None, 0, False
    while not over:
        scores = score(anatomy(), "random", seed=seed + number)
        number += 1
        whole = course.plan(scores, before)
        decided, over = course.next_plan(scores, number, before)
        assert decided.made_by["reached"] <= decided.made_by["limit"]
        lost = gone(decided) - gone(before)
        if over:
            assert decided == whole
        elif found.kind == "ramp":
            assert number < found.rounds
        else:
            # A round takes what it should, and at most one step of a group more.
            due = course.left(before) - found.leaves(course.left(before))
            assert due <= lost < due + round_to
            assert course.plan(scores, decided).keep != decided.keep  # there is more to go
        before = decided
    assert number <= 36 + 9
    if found.kind == "ramp":
        assert number == found.rounds


def test_pieces_are_those_that_a_budget_counts() -> None:
    course = course_of(anatomy(), "macs=50%", parse_schedule("soft:1"), (), None)
    assert course.pieces == 12 + 24
    assert course_of(anatomy(), "macs=50%", course.schedule, ("stem",), None).pieces == 24
    ratios = {"first": 0.5}
    assert course_of(anatomy(), None, course.schedule, (), None, ratios=ratios).pieces == 36
