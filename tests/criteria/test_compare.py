"""Spearman's correlation is what its definition says, and what has no order is left out aloud."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tonsor.criteria.compare import agreement, correlation, correlations, spearman
from tonsor.criteria.scores import Scores
from tonsor.errors import ScoreError

NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30)


def ranks(values: Sequence[float]) -> list[float]:
    """How many are smaller, and half of those that are equal, itself among them."""
    return [
        sum(w < v for w in values) + (sum(w == v for w in values) + 1) / 2 for v in values
    ]  # fmt: skip


def by_definition(a: Sequence[float], b: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; from differences of all pairs, not from means."""
    x, y = ranks(a), ranks(b)
    pairs = [(i, j) for i in range(len(a)) for j in range(len(a))]
    xy, xx, yy = (
        sum((u[i] - u[j]) * (v[i] - v[j]) for i, j in pairs) for u, v in ((x, y), (x, x), (y, y))
    )
    return xy / math.sqrt(xx * yy) if xx and yy else math.nan


@given(PAIRS)
def test_it_is_the_definition(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    assert spearman(a, b) == pytest.approx(by_definition(a, b), abs=1e-12, nan_ok=True)


@given(PAIRS)
def test_it_is_symmetric_and_sees_order_only(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array(v) for v in zip(*pairs, strict=True))
    assume(np.ptp(a) > 0 and np.ptp(b) > 0)
    found = spearman(a, b)
    assert -1 - 1e-12 <= found <= 1 + 1e-12
    assert spearman(b, a) == found
    assert spearman(a, -b) == pytest.approx(-found, abs=1e-12)
    assert spearman(np.arctan(ranks(a.tolist())), b) == pytest.approx(found, abs=1e-12)
    assert spearman(a, a) == pytest.approx(1, abs=1e-12)


def test_by_hand() -> None:
    # Without ties, 1 - 6 Σd² / (n (n² - 1)): d = 0, 1, 1, 0.
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert math.isnan(spearman([1], [2]))
    assert math.isnan(spearman([], []))
    assert spearman([-math.inf, 0, math.inf], [1, 2, 3]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1, 2], [1, 2, 3], "2 and 3 elements"),
        ([1, math.nan], [1, 2], "this has NaN"),
        ([[1, 2]], [[1, 2]], r"one of shape \(1, 2\)"),
    ],
)
def test_what_has_no_order_is_refused(a: list[float], b: list[float], said: str) -> None:
    with pytest.raises(ScoreError, match=said):
        spearman(a, b)


def scores(by: str, unscored: dict[str, str] | None = None, **groups: list[float]) -> Scores:
    return Scores({n: np.array(v, dtype=np.float64) for n, v in groups.items()}, by, unscored or {})


A = scores("a", x=[1, 2, 3], y=[1, 2, 3, 4, 5, 6], z=[1, 1], u=[1, 2], one=[1])
B = scores("b", {"u": "no map"}, x=[3, 2, 1], y=[1, 2, 3, 4, 6, 5], z=[1, 2], one=[1], w=[1, 2])


def test_groups_weigh_as_much_as_they_are_large() -> None:
    rho = 1 - 6 * 2 / (6 * 35)
    found = agreement(A, B)
    assert found.groups == {"x": pytest.approx(-1), "y": pytest.approx(rho)}
    assert found.value == pytest.approx((3 * -1 + 6 * rho) / 9)
    assert correlation(A, B) == found.value == correlation(B, A)


def test_groups_that_say_nothing_are_named_with_the_reason() -> None:
    found = agreement(A, B)
    assert found.left_out == {
        "z": "'a' gives all pieces of it the same score",
        "u": "no map",
        "one": "a single piece has no order",
        "w": "'a' has no scores of it",
    }
    assert "over 2 groups\n  without z: 'a' gives" in str(found)
    assert math.isnan(correlation(scores("a", x=[1, 1]), scores("b", x=[1, 2])))


def test_scores_of_different_models_do_not_compare() -> None:
    with pytest.raises(ScoreError, match="'x' has 3 scores by 'a' and 2 by 'c'"):
        correlation(A, scores("c", x=[1, 2]))


def test_a_matrix_of_all_with_all() -> None:
    flat = scores("flat", x=[0, 0, 0])
    names, matrix = correlations([A, B, flat])
    assert names == ("a", "b", "flat")
    assert np.array_equal(matrix, matrix.T, equal_nan=True)
    assert matrix[:2, :2].tolist() == [
        [pytest.approx(1), correlation(A, B)],
        [correlation(A, B), pytest.approx(1)],
    ]
    assert np.isnan(matrix[2]).all()
