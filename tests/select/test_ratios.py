"""Ratios: shares and exact counts of single groups, beside budgets, skip lists and all ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.laws.networks import examples
from tonsor.errors import SelectionError
from tonsor.select.make import plan
from tonsor.select.rank import RANKS, Rank

from .nets import anatomy_of, drawn, seeds, widths

STAGE = [f"layer2.{i}.conv1" for i in range(3)]  # of 16 channels each


@examples(40)
@given(seeds, st.lists(st.integers(2, 16), min_size=3, max_size=3), st.sampled_from(RANKS))
def test_counts_are_kept_exactly_whatever_else_is_asked(
    seed: int, counts: list[int], rank: Rank
) -> None:
    anatomy = anatomy_of("resnet20")
    scores = drawn(anatomy, seed)
    asked = dict(zip(STAGE, counts, strict=True))
    decided = plan(anatomy, "pieces=75%", by=scores, rank=rank, ratios=asked, keep=["layer3"])
    found = widths(anatomy, decided)
    for name, count in asked.items():
        group = f"{name}.weight[0]"
        assert found[group] == count
        lowest = np.argsort(scores[group], kind="stable")[: 16 - count]
        kept = decided.keep.get(group, tuple(range(16)))
        assert set(kept) == set(range(16)) - set(lowest.tolist())
    assert all(found[f"layer3.{i}.conv1.weight[0]"] == 32 for i in range(3))
    assert decided.made_by["reached"] <= decided.made_by["limit"]


@pytest.mark.parametrize("kept", [np.int64(5), 5])
def test_a_count_may_be_a_number_of_numpy(kept: Any) -> None:
    anatomy = anatomy_of("resnet20")
    decided = plan(anatomy, ratios={"layer2.0.conv1": kept})
    assert decided.counts == {"layer2.0.conv1.weight[0]": 5}


def test_one_is_the_whole_and_a_fraction_gives_the_nearest_count() -> None:
    anatomy = anatomy_of("resnet20")
    asked = {STAGE[0]: 1, STAGE[1]: 1.0, STAGE[2]: 0.4}
    assert plan(anatomy, ratios=asked).counts == {f"{STAGE[2]}.weight[0]": 6}


def test_of_several_patterns_the_last_that_fits_holds() -> None:
    anatomy = anatomy_of("resnet20")
    decided = plan(anatomy, ratios={"layer*.conv1": 0.5, "layer2.*.conv1": 4, "layer2.1.conv1": 10})
    counts = {n: c for n, c in decided.counts.items() if n != "conv1.weight[0]"}
    assert counts == {
        **{f"layer1.{i}.conv1.weight[0]": 4 for i in range(3)},
        **{f"layer2.{i}.conv1.weight[0]": 10 if i == 1 else 4 for i in range(3)},
        **{f"layer3.{i}.conv1.weight[0]": 16 for i in range(3)},
    }


def test_patterns_pass_over_what_keep_holds_but_a_name_is_told_why() -> None:
    anatomy = anatomy_of("resnet20")
    decided = plan(anatomy, ratios={"layer2.*.conv1": 4}, keep=["layer2.1"])
    assert sorted(decided.counts) == [f"layer2.{i}.conv1.weight[0]" for i in (0, 2)]
    with pytest.raises(SelectionError, match=r"'layer2\.1\.conv1' can't .* keep= holds it"):
        plan(anatomy, ratios={"layer2.1.conv1": 4}, keep=["layer2.1"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too many": ({"ratios": {STAGE[0]: 17}}, "has no more than that.* keep: 16"),
    "multiples": ({"ratios": {STAGE[0]: 10}, "round_to": 4}, "round_to=4 .* keep: 12 or 8"),
    "true": ({"ratios": {STAGE[0]: True}}, "above 0 and at most 1.*got True"),
    "float": ({"ratios": {STAGE[0]: 8.0}}, "a whole number of pieces, got 8.0"),
    "text": ({"ratios": {STAGE[0]: "8"}}, "a whole number of pieces, got 8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_kept_is_refused_with_the_reason(case: str) -> None:
    options, hint = REFUSED[case]
    with pytest.raises(SelectionError, match=hint):
        plan(anatomy_of("resnet20"), **options)


def test_what_must_shrink_in_step_can_not_be_asked_for_different_counts() -> None:
    anatomy = anatomy_of("halves")
    first, second = (g.name for g in anatomy.prunable if g.tie is not None)
    with pytest.raises(SelectionError, match=r"must shrink in step, but .* asks for 5"):
        plan(anatomy, ratios={first: 5, second: 7})


def test_two_names_of_one_group_must_agree() -> None:
    anatomy = anatomy_of("resnet20")
    group = next(g for g in anatomy.prunable if g.name == f"{STAGE[0]}.weight[0]")
    with pytest.raises(SelectionError, match="is the output of both"):
        plan(anatomy, ratios={STAGE[0]: 5, group.name: 6})
    assert plan(anatomy, ratios={STAGE[0]: 5, group.name: 5}).counts == {group.name: 5}


def test_ties_follow_the_group_that_was_named() -> None:
    anatomy = anatomy_of("halves")
    tied = [g for g in anatomy.prunable if g.tie is not None]
    assert len(tied) == 2
    decided = plan(anatomy, ratios={tied[1].name: 5})
    assert decided.counts == dict.fromkeys([g.name for g in tied], 5)
    assert isinstance(decided.apply(anatomy.model), type(anatomy.model))
    assert tonsor.plan(anatomy, ratios={tied[0].name: 0.5}).counts == {g.name: 6 for g in tied}
