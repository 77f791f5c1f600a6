"""Scores that lack groups, do not fit, or say something that users should know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import tonsor
from tests.laws.networks import examples
from tonsor import api
from tonsor.criteria.score import Scores
from tonsor.errors import BudgetError, ProofError, ScoreError, SelectionError
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan
from tonsor.select.make import plan
from tonsor.surgery.proof import Proof
from tonsor.types import Pin

from .nets import anatomy_of, drawn, nets, seeds, together, widths


@examples(40)
@given(nets, seeds)
def test_groups_without_scores_stay_whole_and_the_plan_says_why(net: str, seed: int) -> None:
    anatomy = anatomy_of(net)
    scores = drawn(anatomy, seed)
    names = list(scores.values)
    lacking = [n for i, n in enumerate(names) if (seed >> i) % 2]
    rest = {n: v for n, v in scores.values.items() if n not in lacking}
    reasons = dict.fromkeys(lacking[:1], "it has no BatchNorm")
    given_scores = Scores(rest, "test", reasons)
    whole = together(anatomy, lacking)
    if whole == set(names):
        return
    decided = plan(anatomy, ratios={"*": 0.5}, by=given_scores)
    assert decided.made_by["unscored"].keys() == whole
    for name in lacking:
        said = "it has no BatchNorm" if name in reasons else "'test' gives it no scores"
        assert decided.made_by["unscored"][name] == said
    found = widths(anatomy, decided)
    for group in anatomy.prunable:
        assert (found[group.name] == group.size) == (group.name in whole)
    assert plan_from_json(plan_to_json(decided)).made_by["unscored"] == decided.made_by["unscored"]


def test_a_report_says_what_could_not_be_judged_and_that_scores_are_tied() -> None:
    anatomy = anatomy_of("convnet")
    first, second, *others = anatomy.prunable
    values = {g.name: np.arange(float(g.size)) for g in others} | {
        second.name: np.ones(second.size)
    }
    _, report = tonsor.prune(
        anatomy.model, torch.randn(1, 3, 32, 32), budget="pieces=80%", by=Scores(values, "test")
    )
    notes = "\n".join(report.warnings)
    assert f"can't judge '{first.name}'" in notes
    assert f"all pieces of '{second.name}' the same score" in notes
    assert first.name not in report.plan.keep
    assert all(f"note: {w}" in str(report) for w in report.warnings)


def test_notes_do_not_speak_of_groups_that_are_kept() -> None:
    anatomy = anatomy_of("convnet")
    first = anatomy.prunable[0]
    scores = drawn(anatomy, 0)
    flat = replace(scores, values={**scores.values, first.name: np.ones(first.size)})
    assert plan(anatomy, "pieces=80%", by=flat).made_by["notes"]
    kept = plan(anatomy, "pieces=80%", by=flat, keep=[first.name])
    assert kept.made_by["notes"] == []
    lacking = {n: v for n, v in scores.values.items() if n != first.name}
    kept = plan(anatomy, "pieces=80%", by=replace(scores, values=lacking), keep=[first.name])
    assert kept.made_by["unscored"] == {}


@pytest.mark.parametrize(
    ("row", "error", "hint"),
    [
        (np.ones(3), SelectionError, r"are of shape \(3,\), but it has 8 pieces"),
        (np.ones((8, 1)), SelectionError, r"are of shape \(8, 1\)"),
        (np.array([1.0] * 7 + [np.nan]), ScoreError, "1 of the 8 scores .* are NaN"),
        (np.array([np.inf] * 8), ScoreError, "8 of the 8 scores"),
        (["high"] * 8, ScoreError, "are no numbers"),
    ],
)
def test_scores_that_do_not_fit_a_group_are_refused(
    row: object, error: type[Exception], hint: str
) -> None:
    anatomy = anatomy_of("convnet")
    first = next(g for g in anatomy.prunable if g.size == 8)
    scores = drawn(anatomy, 0)
    odd = Scores({**scores.values, first.name: row}, "mine")  # type: ignore[dict-item]
    with pytest.raises(error, match=hint) as caught:
        plan(anatomy, "pieces=50%", by=odd)
    assert f"'{first.name}'" in str(caught.value)


def test_a_ratio_for_a_group_without_scores_says_why_it_has_none() -> None:
    anatomy = anatomy_of("convnet")
    first = anatomy.prunable[0].name
    scores = drawn(anatomy, 0)
    rest = {n: v for n, v in scores.values.items() if n != first}
    lacking = Scores(rest, "test", {first: "no norm runs along it"})
    with pytest.raises(SelectionError, match="can't be given a ratio: no norm runs along it"):
        plan(anatomy, ratios={first: 0.5}, by=lacking)


def test_a_budget_out_of_reach_names_what_has_no_scores() -> None:
    anatomy = anatomy_of("convnet")
    first = anatomy.prunable[0].name
    scores = drawn(anatomy, 0)
    lacking = replace(scores, values={n: v for n, v in scores.values.items() if n != first})
    with pytest.raises(BudgetError, match="1 groups have no scores and stay whole") as caught:
        plan(anatomy, "pieces=10%", by=lacking)
    assert first in str(caught.value)


def test_data_is_shown_once_though_a_plan_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof fails once, and what is to blame is pinned; an iterator has no second run."""
    anatomy = anatomy_of("convnet")
    first = anatomy.prunable[0].name
    shown, prove = [], Plan.prove

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        torch.manual_seed(0)
        for i in range(5):
            shown.append(i)
            yield torch.randn(2, 3, 32, 32), torch.tensor([0, 1])

    def fails_with_the_first(plan: Plan, *given: Any, **named: Any) -> Proof:
        if first in plan.keep:
            message = "they disagree"
            raise ProofError(message)
        return prove(plan, *given, **named)

    monkeypatch.setattr(Plan, "prove", fails_with_the_first)
    monkeypatch.setattr(api, "_blame", lambda *_: {first: Pin("value", "it is to blame")})
    options: dict[str, Any] = {"budget": "pieces=80%", "by": "taylor_gate", "quiet": True}
    x = torch.randn(1, 3, 32, 32)
    slim, report = tonsor.prune(anatomy.model, x, batches=batches(), at_most=2, **options)
    assert 0 < len(shown) <= 3
    assert report.plan.made_by["by"] == "taylor_gate"
    assert report.proof is not None
    assert first not in report.plan.keep
    assert type(slim) is type(anatomy.model)

    # What an earlier plan has cut can't be pinned any more, so the failure is told.
    earlier = replace(report.plan, keep={first: (0, 1)})
    options |= {"by": "l2", "after": earlier}
    with pytest.raises(ProofError, match="they disagree"):
        tonsor.prune(anatomy.model, x, **options)
