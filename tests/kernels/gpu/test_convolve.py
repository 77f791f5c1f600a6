"""The kernel computes what torch's convolution does with the masked weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.kernels.gpu.cases import Case, cases
from tonsor.kernels.gpu import launch
from tonsor.kernels.gpu.launch import convolve
from tonsor.kernels.gpu.window import Window


def run(case: Case, place: torch.device, dtype: torch.dtype = torch.float32, **more: Any) -> Tensor:
    x, bias, residual = (
        None if t is None else t.to(place, dtype) for t in case.given_tensors()
    )  # fmt: skip
    assert x is not None
    found = convolve(x, case.packed(dtype).to(place), bias, residual, relu=case.relu, **more)
    assert found.dtype == dtype
    # Laid out as the input is, where that says anything.
    assert not x.is_contiguous() or found.is_contiguous()
    assert x.is_contiguous() or found.is_contiguous(memory_format=torch.channels_last)
    return found.cpu().double()


def close(found: Tensor, wanted: Tensor, near: float) -> None:
    assert found.shape == wanted.shape
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found, wanted, rtol=near, atol=near * scale)


@settings(max_examples=60)
@given(case=cases())
def test_it_is_the_masked_convolution(place: torch.device, case: Case) -> None:
    close(run(case, place), case.wanted(), 1e-5)


@settings(max_examples=15)
@given(case=cases())
def test_half_precision_is_rounded_only_at_the_end(place: torch.device, case: Case) -> None:
    wanted = case.wanted(torch.float16)
    close(run(case, place, torch.float16), wanted.half().double(), 1.5e-3)


KINDS = pytest.mark.parametrize("kind", ["stripes", "columns", "dense"])


@KINDS
@pytest.mark.parametrize("last", [False, True])
def test_many_tiles_and_many_blocks_fit_together(
    place: torch.device, kind: Any, last: bool
) -> None:
    case = Case(
        kind, inputs=32, outputs=40, sides=(7, 8), residual=True, relu=True, last=last,
        given=(("block", 16), ("step", 16)),
    )  # fmt: skip
    close(run(case, place), case.wanted(), 1e-5)


@KINDS
@pytest.mark.parametrize("side", range(1, 8))
def test_kernels_as_large_as_the_input_give_one_pixel(
    place: torch.device, kind: Any, side: int
) -> None:
    case = Case(kind, sides=(side, side), kernel=(side, side), window=Window())
    assert case.out_sides == (1, 1)
    close(run(case, place), case.wanted(), 1e-5)


@pytest.mark.parametrize("kind", ["stripes", "columns"])
def test_a_layer_without_fibres_is_its_bias(place: torch.device, kind: Any) -> None:
    case = Case(kind, keep=0.0)
    found = run(case, place)
    bias = case.given_tensors()[1]
    assert bias is not None
    assert torch.equal(found, bias.double().view(1, -1, 1, 1).expand_as(found))


@KINDS
def test_what_is_not_read_may_be_anything(place: torch.device, kind: Any) -> None:
    """No filling up multiplies what lies beside: not even infinity times zero."""
    case = Case(kind, batch=1, inputs=6, groups=2, outputs=8, window=Window(), residual=True)
    whole = torch.full((3, 8, *case.sides), torch.inf)
    x, bias, residual = case.given_tensors()
    whole[1:2, 1:7] = x
    inner = whole.to(place)[1:2, 1:7]
    packed = case.packed().to(place)
    assert bias is not None
    assert residual is not None
    found = convolve(inner, packed, bias.to(place), residual.to(place))
    close(found.cpu().double(), case.wanted(), 1e-5)


@KINDS
def test_any_strides_of_input_and_residual_will_do(place: torch.device, kind: Any) -> None:
    case = Case(kind, sides=(5, 5), residual=True)
    x, bias, residual = case.given_tensors()
    assert bias is not None
    assert residual is not None
    turned = x.transpose(2, 3).contiguous().transpose(2, 3).to(place)
    one = residual[:1, :, :1, :1].to(place)
    found = convolve(turned, case.packed().to(place), bias.to(place), one.expand(residual.shape))
    plain = Case(kind, sides=(5, 5)).wanted()
    close(found.cpu().double(), plain + one.cpu().double(), 1e-5)


def test_offsets_may_be_larger_than_32_bits(place: torch.device) -> None:
    """The third of three images lies 2**31 numbers behind the first, in steps that 31 bits hold."""
    if place.type == "cuda":
        pytest.skip("takes 4 GB of a GPU")
    case = Case("stripes", batch=3, inputs=16, sides=(4, 3))
    x = case.given_tensors()[0].half()
    apart = 2**30 + 64
    far = torch.empty(2 * apart + 1024, dtype=torch.float16)  # is not touched, so takes no memory
    images = far.as_strided(x.shape, (apart, *x.stride()[1:]))
    images.copy_(x)
    assert launch._reach(images) > launch._INT32
    packed = case.packed(torch.float16)
    torch.testing.assert_close(convolve(images, packed), convolve(x, packed), rtol=0, atol=0)


def test_no_images_are_no_images(place: torch.device) -> None:
    case = Case("columns")
    x = torch.empty(0, case.inputs, *case.sides, device=place)
    found = convolve(x, case.packed().to(place))
    assert found.shape == (0, case.outputs, *case.out_sides)


def test_what_is_no_number_stays_so_behind_relu(place: torch.device) -> None:
    case = Case("dense", kernel=(1, 1), window=Window(), bias=False)
    x = torch.full((1, case.inputs, 2, 2), torch.nan, device=place)
    assert convolve(x, case.packed().to(place), relu=True).isnan().all()
