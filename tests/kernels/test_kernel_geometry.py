"""Sizes of a convolution are those of torch, and sizes that can't be are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.cases import Case, cases, slid
from tonsor.errors import EngineError
from tonsor.kernels.geometry import Geometry


@given(case=cases(2e4))
def test_the_output_is_as_large_as_that_of_torch(case: Case) -> None:
    out = slid(case.x, case.stays, case.geometry)
    assert case.geometry.out_size(case.sides) == tuple(out.shape[2:])


@given(case=cases())
def test_numbers_say_all_of_it(case: Case) -> None:
    shape = case.geometry
    assert Geometry.of(shape.numbers) == shape
    assert len(shape.numbers) == 13
    assert shape.inputs * shape.groups == shape.in_channels
    assert shape.filters * shape.groups == shape.out_channels


@given(numbers=st.permutations(range(2, 11)))
def test_each_number_has_a_place_of_its_own(numbers: list[int]) -> None:
    high, wide, *others = numbers
    padding = (others[3], others[4], others[5], others[6])
    shape = Geometry(12, 18, (high, wide), (others[0], others[1]), padding, (others[2], 1), 6)
    assert shape.numbers == [12, 18, high, wide, *others[:2], *padding, others[2], 1, 6]


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_channels": 0}, {"out_channels": 0}, {"kernel": (0, 3)}, {"stride": (1, 0)},
        {"padding": (0, 0, -1, 0)}, {"dilation": (0, 1)}, {"groups": 0}, {"groups": -2},
        {"groups": 4}, {"in_channels": 7, "groups": 2},
    ],
)  # fmt: skip
def test_what_is_no_convolution_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"there is no convolution like .* correct it"):
        replace(Geometry(6, 6, (3, 3)), **wrong)


def test_an_input_that_is_too_small_has_no_output() -> None:
    high, wide = Geometry(1, 1, (5, 3), dilation=(2, 1)).out_size((8, 3))
    assert (high < 1, wide) == (True, 1)
    with pytest.raises(RuntimeError):
        torch.nn.functional.conv2d(torch.ones(1, 1, 8, 3), torch.ones(1, 1, 5, 3), dilation=(2, 1))
