"""Accuracies and differences of models on the same images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonsor.study.paired import accuracy, difference, packed, spread, unpacked

RIGHT = st.lists(st.booleans(), min_size=2, max_size=60)


def runs(draw: st.DataObject, count: int, seeds: int) -> list[np.ndarray]:
    each = st.lists(st.booleans(), min_size=count, max_size=count)
    return [np.array(draw.draw(each)) for _ in range(seeds)]


@given(RIGHT)
def test_answers_come_back_from_text(right: list[bool]) -> None:
    assert unpacked(packed(np.array(right)), len(right)).tolist() == right


@given(st.data(), st.integers(2, 40), st.integers(1, 3))
def test_a_difference_is_that_of_the_accuracies_and_its_error_that_of_the_images(
    data: st.DataObject, count: int, seeds: int
) -> None:
    one, other = runs(data, count, seeds), runs(data, count, seeds)
    found = difference(one, other)
    assert found.mean == pytest.approx(accuracy(one).mean - accuracy(other).mean)
    by_image = [
        sum(float(r[i]) for r in one) / seeds - sum(float(r[i]) for r in other) / seeds
        for i in range(count)
    ]
    middle = sum(by_image) / count
    variance = sum((v - middle) ** 2 for v in by_image) / (count - 1)
    assert found.error == pytest.approx(math.sqrt(variance / count), abs=1e-12)


def test_models_that_are_right_together_differ_with_less_doubt_than_each_has_alone() -> None:
    one = np.array([True] * 60 + [False] * 40)
    other = one.copy()
    other[:2] = False
    found = difference([one], [other])
    assert found.mean == pytest.approx(0.02)
    assert found.error < 0.4 * accuracy([one]).error
    assert difference([one], [one]).error == 0


def test_one_run_has_the_binomial_error_and_no_spread() -> None:
    right = np.array([True] * 80 + [False] * 20)
    found = accuracy([right])
    assert found.error == pytest.approx(math.sqrt(0.8 * 0.2 / 99))
    assert math.isnan(spread([right]))
    assert spread([right, ~right]) == pytest.approx(np.std([0.8, 0.2], ddof=1))
    assert found.percent == "80.0 ± 4.0"
