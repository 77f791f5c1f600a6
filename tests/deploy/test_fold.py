"""A batch norm that is folded into a convolution of any kind computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.deploy.nets import shaken
from tests.surgery import column_cases, stripe_cases
from tonsor.deploy.fold import Norm, folded
from tonsor.deploy.layers import own_copy
from tonsor.surgery.fibre_conv import FibreConv

CASES: Any = {"dense": stripe_cases, "stripes": stripe_cases, "columns": column_cases}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
@torch.no_grad()
def test_folding_a_norm_changes_nothing(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind].cases())
    conv: Any = case.conv() if kind == "dense" else CASES[kind].layer_of(case)
    affine = data.draw(st.booleans())
    norm: Any = NORMS[case.rank - 1](conv.out_channels, affine=affine).double()
    shaken(norm, seed=case.seed)
    x = case.x()
    if x.dim() == case.rank + 1:
        x = x.unsqueeze(0)
    wanted = norm(conv(x)) if x.shape[0] else conv(x)
    one = folded(conv, Norm(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps))
    assert type(one) is type(conv)
    torch.testing.assert_close(one(x), wanted, rtol=1e-9, atol=1e-9)


def test_the_convolution_that_was_given_is_not_touched() -> None:
    conv = nn.Conv2d(2, 3, 3)
    before = [t.clone() for t in conv.parameters()]
    norm = Norm(torch.ones(3), torch.full((3,), 4.0), None, None, 1e-5)
    other: Any = folded(conv, norm)
    assert not torch.equal(other.weight, conv.weight)
    for tensor, was in zip(conv.parameters(), before, strict=True):
        assert torch.equal(tensor, was)


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
@torch.no_grad()
def test_a_copy_has_tensors_of_its_own(kind: str, data: st.DataObject) -> None:
    case = data.draw(CASES[kind].cases())
    conv: Any = case.conv() if kind == "dense" else CASES[kind].layer_of(case)
    other: Any = own_copy(conv)
    wanted = conv(case.x())
    torch.testing.assert_close(other(case.x()), wanted)
    assert isinstance(other, FibreConv) == (kind != "dense")
    other.weight.zero_()
    torch.testing.assert_close(conv(case.x()), wanted)


def test_a_weight_that_is_computed_is_computed_once() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    other: Any = own_copy(conv)
    assert type(other) is nn.Conv2d
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(other(x), conv(x))
