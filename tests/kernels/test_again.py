"""A call that is made again computes what the first did, and knows what it is not for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch._subclasses import FakeTensorMode

from tests.kernels.cases import Case, cases
from tonsor.errors import EngineError
from tonsor.kernels.again import Again
from tonsor.kernels.packed import FORMS, Form

FORM = pytest.mark.parametrize("form", FORMS)


def again(case: Case, packed: Tensor) -> Again:
    return Again(packed, case.x, case.geometry, relu=case.relu)


@settings(max_examples=150)
@given(case=cases())
def test_it_computes_what_the_first_call_did(case: Case) -> None:
    packed, residual = case.packed(), case.given_residual
    call = again(case, packed)
    laid = case.x.contiguous(memory_format=torch.channels_last)
    assert call.fits(packed, case.x, residual)
    for x in (case.x, laid, torch.cat([case.x, case.x], 3)[..., : case.sides[1]]):
        found = call(x, residual)
        assert torch.equal(found, case.found()), case
        assert found.dtype == case.dtype
        assert found.is_contiguous(memory_format=torch.channels_last)


@FORM
def test_what_is_of_another_kind_does_not_fit(form: Form) -> None:
    case = Case(form, residual=True)
    packed, x, residual = case.packed(), case.x, case.given_residual
    assert residual is not None
    call = again(case, packed)
    assert call.fits(packed, x, None)
    assert not call.fits(packed.clone(), x, None)
    assert not call.fits(None, x, None)
    for other in (x.bfloat16(), x.to("meta"), torch.nn.Parameter(x), x.clone().requires_grad_()):
        assert not call.fits(packed, other, None)
    for other in (
        residual.bfloat16(), residual[:1], residual[..., 1:], residual.to("meta"),
        torch.nn.Parameter(residual), residual.clone().requires_grad_(),
    ):  # fmt: skip
        assert not call.fits(packed, x, other)
    with torch.no_grad():
        assert call.fits(packed, x.clone().requires_grad_(), residual.clone().requires_grad_())


@FORM
def test_another_default_device_does_not_matter(form: Form) -> None:
    case = Case(form)
    call, x = again(case, case.packed()), case.x
    with torch.device("meta"):
        found = call(x, None)
    assert torch.equal(found, case.found())


@FORM
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_where_all_is_fake_it_says_so(form: Form) -> None:
    """Who calls it asks first whether somebody looks on; else there would be no memory to use."""
    case = Case(form)
    call, x = again(case, case.packed()), case.x
    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        pytest.raises(EngineError, match="a shape and no numbers"),
    ):
        call(x, None)


@FORM
def test_weights_that_were_written_over_are_not_run_as_others(form: Form) -> None:
    """Of the same size, but for another convolution."""
    case = Case(form, None)
    packed = case.packed()
    call, wanted, kept = again(case, packed), case.found(), packed.clone()
    packed.copy_(replace(case, geometry=replace(case.geometry, dilation=(2, 1))).packed())
    with pytest.raises(EngineError, match="packed for another convolution"):
        call(case.x, None)
    packed.copy_(kept)
    assert torch.equal(call(case.x, None), wanted)
