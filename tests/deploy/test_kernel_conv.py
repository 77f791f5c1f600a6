"""A layer that runs by a compiled kernel computes what the convolution does, wherever it goes."""

from __future__ import annotations

import copy
import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from tonsor.deploy.kernel_conv import KernelConv, forms_for, kernel_ways
from tonsor.deploy.layers import FusedConv
from tonsor.kernels import library
from tonsor.kernels.packed import FORMS, Form
from tonsor.surgery.column_conv import ColumnConv2d
from tonsor.surgery.stripe_conv import StripeConv2d

FORM = pytest.mark.parametrize("form", FORMS)
MODES = ("zeros", "reflect", "replicate", "circular")
IMAGE = torch.randn(2, 4, 9, 8, generator=torch.Generator().manual_seed(0))


def layer(
    kind: str = "stripes", keep: float = 0.4, seed: int = 0, inputs: int = 4, filters: int = 6,
    **given_: Any,
) -> Any:  # fmt: skip
    """A convolution of torch, or one that holds some fibres."""
    torch.manual_seed(seed)
    if kind == "dense":
        return nn.Conv2d(inputs, filters, (3, 3), **given_).eval()
    rows = filters if kind == "stripes" else inputs
    mask = np.random.default_rng(seed).random((rows, 9)) < keep
    made = StripeConv2d if kind == "stripes" else ColumnConv2d
    return made(inputs, filters, mask, (3, 3), **given_).eval()


@st.composite
def fused(draw: st.DrawFn) -> FusedConv:
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride = draw(pair)
    padding: Any = draw(st.sampled_from([0, (2, 1), "valid", *(["same"] * (stride == (1, 1)))]))
    conv = layer(
        draw(st.sampled_from(["dense", "stripes", "columns"])),
        keep=draw(st.sampled_from([0.0, 0.2, 0.6, 1.0])), seed=draw(st.integers(0, 99)),
        stride=stride, padding=padding, dilation=draw(pair), groups=draw(st.sampled_from([1, 2])),
        bias=draw(st.booleans()), padding_mode=draw(st.sampled_from(MODES)),
    )  # fmt: skip
    return FusedConv(conv, relu=draw(st.booleans()), adds=draw(st.booleans()))


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- the same numbers


@settings(max_examples=150)
@given(wanted=fused(), form=st.sampled_from(FORMS))
def test_it_computes_what_the_convolution_does(wanted: FusedConv, form: Form) -> None:
    way = KernelConv(wanted, form)
    with torch.no_grad():
        plain = wanted(IMAGE)
        residual = torch.randn(plain.shape) if wanted.adds else None
        for x in (IMAGE, IMAGE[:1], IMAGE.contiguous(memory_format=torch.channels_last)):
            more = None if residual is None else residual[: len(x)]
            # Again on an input of the same size, which goes a shorter way.
            for _ in range(2):
                near(way(x, more), wanted(x, more))


@FORM
def test_later_calls_see_what_is_given_to_them(form: Form) -> None:
    conv = FusedConv(layer(padding=1), relu=True, adds=True)
    way = KernelConv(conv, form)
    torch.manual_seed(0)
    with torch.no_grad():
        for size in (9, 5, 9, 7, *range(3, 14), 9):
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                x, residual = torch.randn(2, 4, size, 8), torch.randn(2, 6, size, 8)
                wanted = conv(x, residual)
                found = way(x.to(dtype), residual.to(dtype))
                assert found.dtype == dtype
                close = 0.05 if dtype == torch.bfloat16 else 1e-5
                torch.testing.assert_close(found.float(), wanted, rtol=close, atol=close)


@FORM
def test_later_calls_refuse_what_does_not_fit(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1)), form)
    way(IMAGE)
    for residual in (torch.randn(2, 6, 9, 7), torch.randn(2, 6, 9, 8).bfloat16()):
        with pytest.raises(Exception, match=r"a residual of .* can't be added"):
            way(IMAGE, residual)


@FORM
def test_no_images_and_one_image(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1)), form)
    for _ in range(2):
        assert way(IMAGE[:0]).shape == (0, 6, 9, 8)
        near(way(IMAGE[1:]), way(IMAGE)[1:])


# ---------------------------------------------------------------- where it goes


@FORM
def test_copies_and_files_compute_the_same(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1), relu=True), form)
    way(IMAGE)
    wanted, file = way(IMAGE), io.BytesIO()
    torch.save(way, file)
    file.seek(0)
    for other in (
        copy.deepcopy(way), pickle.loads(pickle.dumps(way)), torch.load(file, weights_only=False)
    ):  # fmt: skip
        assert torch.equal(other(IMAGE), wanted)
        assert torch.equal(other(IMAGE), wanted)
        assert other.packed.data_ptr() != way.packed.data_ptr()


@FORM
def test_weights_of_another_are_loaded(form: Form) -> None:
    one, two = (KernelConv(FusedConv(layer("dense", seed=seed)), form) for seed in (1, 2))
    before, wanted = one(IMAGE), two(IMAGE)
    assert not torch.equal(one(IMAGE), wanted)
    assert one.load_state_dict(two.state_dict()).missing_keys == []
    assert torch.equal(one(IMAGE), wanted)
    one.packed = KernelConv(FusedConv(layer("dense", seed=1)), form).packed
    assert torch.equal(one(IMAGE), before)


@FORM
def test_other_types_leave_the_packed_bytes_alone(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1)), form)
    packed, wanted = way.packed.clone(), way(IMAGE)
    for moved in (way.to(torch.bfloat16), way.half(), way.double(), way.float(), way.to("cpu")):
        assert torch.equal(moved.packed, packed)
        assert torch.equal(moved(IMAGE), wanted)
    found = way.to(torch.bfloat16)(IMAGE.bfloat16())
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)


@FORM
def test_weights_that_move_to_shared_memory_are_found_there(form: Form) -> None:
    """As they do when a model is handed to another process."""
    way = KernelConv(FusedConv(layer(padding=1)), form)
    wanted = [way(IMAGE) for _ in range(2)]
    before = way.packed.data_ptr()
    ForkingPickler.dumps(way)
    assert way.packed.is_shared()
    assert way.packed.data_ptr() != before
    assert not way._again[IMAGE.shape].fits(way.packed, IMAGE, None)
    assert torch.equal(way(IMAGE), wanted[1])
    assert way._again[IMAGE.shape].fits(way.packed, IMAGE, None)


# ---------------------------------------------------------------- gradients and shapes


@FORM
def test_gradients_flow_in_every_call(form: Form) -> None:
    conv = FusedConv(layer(padding=1), relu=True)
    way = KernelConv(conv, form)
    for residual_learns in (False, True):
        for _ in range(3):
            x = IMAGE.clone().requires_grad_(not residual_learns)
            residual = torch.ones(2, 6, 9, 8, requires_grad=residual_learns)
            asked = residual if residual_learns else x
            with torch.no_grad():
                assert not way(x, residual).requires_grad
            (found,) = torch.autograd.grad(way(x, residual).square().sum(), asked)
            (wanted,) = torch.autograd.grad(conv(x, residual).square().sum(), asked)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@FORM
def test_shapes_without_numbers_pass(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1)), form)
    way(IMAGE)
    assert way(IMAGE.to("meta")).shape == (2, 6, 9, 8)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert way(mode.from_tensor(IMAGE)).shape == (2, 6, 9, 8)


@FORM
@pytest.mark.parametrize("mode", MODES)
def test_an_exported_program_computes_the_same(form: Form, mode: str) -> None:
    way = KernelConv(FusedConv(layer(padding=(1, 2), padding_mode=mode), relu=True), form).eval()
    batch = torch.export.Dim("batch", max=32)
    program = torch.export.export(way, (IMAGE,), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(5, *IMAGE.shape[1:])
    with torch.no_grad():
        assert torch.equal(program.module()(x), way(x))


@FORM
def test_under_vmap_it_goes_image_by_image(form: Form) -> None:
    way = KernelConv(FusedConv(layer(padding=1)), form)
    with torch.no_grad():
        near(torch.vmap(lambda x: way(x[None]))(IMAGE).squeeze(1), way(IMAGE))


# ---------------------------------------------------------------- which forms


def test_convolutions_and_columns_go_by_panels() -> None:
    for kind in ("dense", "columns"):
        assert forms_for(layer(kind), IMAGE) == ["panels"]


def striped(mask: np.ndarray[Any, Any], kernel: tuple[int, int] = (3, 3), groups: int = 1) -> Any:
    return StripeConv2d(4, len(mask), mask, kernel, padding=(0, 0), groups=groups).eval()


def test_stripes_go_by_panels_too() -> None:
    conv = striped(np.eye(8, 9, dtype=np.bool_))
    assert forms_for(conv, IMAGE) == ["stripes", "panels"]


@pytest.mark.parametrize(("side", "few"), [(3, True), (6, True), (7, False)])
def test_few_pixels_go_by_dots_too(side: int, few: bool) -> None:
    conv = striped(np.eye(8, 9, dtype=np.bool_))
    assert ("dots" in forms_for(conv, torch.empty(1, 4, side, side))) == few
    assert "dots" not in forms_for(conv, torch.empty(17, 4, side, side))


def test_long_kernels_do_not_go_by_stripes() -> None:
    conv = striped(np.random.default_rng(0).random((5, 65)) < 0.5, (1, 65))
    x = torch.randn(1, 4, 3, 99)
    assert forms_for(conv, x) == ["panels"]
    near(KernelConv(FusedConv(conv), "panels")(x), conv(x))


def test_ways_are_for_types_that_kernels_take(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = FusedConv(layer(padding=1))
    ways = kernel_ways(conv, IMAGE)
    assert list(ways) == forms_for(conv.conv, IMAGE)
    for way in ways.values():
        near(way(IMAGE), conv(IMAGE))
    assert kernel_ways(conv, IMAGE.double()) == {}
    monkeypatch.setenv("TONSOR_KERNELS", "off")
    library.forget()
    try:
        assert kernel_ways(conv, IMAGE) == {}
    finally:
        library.forget()


def test_it_says_what_it_is() -> None:
    way = KernelConv(FusedConv(layer(padding=1), relu=True), "dots")
    assert repr(way) == "KernelConv(4, 6, (3, 3), form=dots, relu)"
