"""The automatic skip list: what skewness is, and which groups it leaves whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.laws.networks import examples
from tonsor.criteria.score import Scores
from tonsor.errors import SelectionError
from tonsor.select.make import plan
from tonsor.select.skew import skewed, skewness

from .nets import anatomy_of, drawn, nets, seeds, together, widths

rows = st.lists(st.integers(-50, 50), min_size=1, max_size=20).map(np.array)


@given(rows)
def test_skewness_is_the_third_moment_over_the_second(row: np.ndarray) -> None:
    apart = row - row.mean()
    second, third = (apart**2).mean(), (apart**3).mean()
    expected = third / second**1.5 if np.ptp(row) else 0.0
    assert skewness(row.astype(float)) == pytest.approx(expected, abs=1e-9)


@given(rows, st.sampled_from((1e-150, 1e-3, 1e90)))
def test_skewness_has_no_unit_and_a_sign(row: np.ndarray, scale: float) -> None:
    plain = skewness(row.astype(float))
    assert skewness(row * scale) == pytest.approx(plain, abs=1e-9)
    assert skewness(-row * scale) == pytest.approx(-plain, abs=1e-9)


def test_equal_scores_have_none_however_they_are_rounded() -> None:
    assert skewness(np.full(7, 0.1)) == 0.0
    assert skewness(np.array([3.0])) == 0.0
    assert skewness(np.array([])) == 0.0


@examples(40)
@given(nets, seeds, st.floats(-1, 2))
def test_groups_above_the_threshold_stay_whole_with_all_that_shrinks_in_step(
    net: str, seed: int, threshold: float
) -> None:
    anatomy = anatomy_of(net)
    scores = drawn(anatomy, seed)
    expected = {n: skewness(v) for n, v in scores.values.items() if skewness(v) > threshold}
    assert skewed(scores, threshold) == expected
    decided = plan(anatomy, ratios={"*": 0.5}, by=scores, skew=threshold)
    assert decided.made_by["skipped"] == expected
    found, whole = widths(anatomy, decided), together(anatomy, list(expected))
    for group in anatomy.prunable:
        assert (found[group.name] == group.size) == (group.name in whole)


def test_without_a_threshold_nothing_is_skipped() -> None:
    anatomy = anatomy_of("resnet20")
    assert plan(anatomy, "pieces=50%").made_by["skipped"] == {}


def test_the_skip_list_is_in_the_report() -> None:
    anatomy = anatomy_of("convnet")
    first, *others = anatomy.prunable
    tail = {g.name: np.sqrt(np.arange(1.0, g.size + 1)) for g in others}
    scores = Scores({first.name: np.arange(float(first.size)) ** 3, **tail}, "test")
    _, report = tonsor.prune(
        anatomy.model, torch.randn(1, 3, 32, 32), budget="pieces=80%", by=scores, skew=0
    )
    (note,) = [w for w in report.warnings if "skewness" in w]
    assert f"'{first.name}' ({skewness(scores[first.name]):.2f})" in note
    assert first.name not in report.plan.keep


@pytest.mark.parametrize("skew", ["0", float("nan"), True])
def test_a_threshold_is_a_number(skew: object) -> None:
    with pytest.raises(SelectionError, match="skew must be a number"):
        plan(anatomy_of("convnet"), "pieces=50%", skew=skew)  # type: ignore[arg-type]
