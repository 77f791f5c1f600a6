"""The compiled kernels compute what torch's convolution does with the masked weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.cases import KINDS, Case, at_level, cases, drawn, levels, slid
from tonsor.errors import EngineError
from tonsor.kernels import library
from tonsor.kernels.convolve import convolve
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form, pack

FORM = pytest.mark.parametrize("form", FORMS)
KIND = pytest.mark.parametrize("kind", KINDS)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=levels())
def each_level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with at_level(request.param, monkeypatch):
        yield request.param


def same_bits(one: Tensor, two: Tensor) -> bool:
    """Whether all numbers are the same: zeros in their sign too, and NaN."""
    numbers = ~two.isnan()
    alike = torch.equal(one.isnan(), ~numbers) and torch.equal(one[numbers], two[numbers])
    return alike and torch.equal(one.signbit()[numbers], two.signbit()[numbers])


# ---------------------------------------------------------------- right numbers


@pytest.mark.parametrize("part", range(8))
def test_thousands_of_convolutions_are_those_of_torch(part: int) -> None:
    for seed in range(part * 500, part * 500 + 500):
        drawn(seed).check()


def test_each_level_of_this_machine_computes_the_same(each_level: str) -> None:
    assert library.state().level == each_level
    for seed in range(10_000, 10_500):
        drawn(seed).check()


@settings(max_examples=150)
@given(case=cases())
def test_any_small_convolution_is_that_of_torch(case: Case) -> None:
    case.check()


@FORM
@pytest.mark.parametrize("seed", range(5))
def test_bfloat16_is_rounded_as_torch_rounds(form: Form, seed: int) -> None:
    """Any bits at all, and many that lie in the middle between two numbers of bfloat16."""
    seeded = torch.Generator().manual_seed(seed)
    bits = torch.randint(-(2**31), 2**31 - 1, (150,), generator=seeded, dtype=torch.int32)
    bits[::3] = bits[::3] & -65536 | 0x8000
    bias = bits.view(torch.float32)
    bias[:4] = torch.tensor([NAN, INF, -INF, torch.finfo(torch.float32).max])
    shape, none = Geometry(2, 150, (1, 1)), np.zeros((150, 1), np.bool_)
    packed = pack(torch.ones(150, 2, 1, 1), bias, shape, form, "stripes", none)
    x = torch.ones(1, 2, 3, 3, dtype=torch.bfloat16)
    wanted = bias.bfloat16().view(1, -1, 1, 1).expand(1, 150, 3, 3)
    assert same_bits(convolve(packed, x, shape), wanted)


@FORM
@KIND
@pytest.mark.parametrize("side", range(1, 12))
def test_kernels_as_large_as_the_image_give_one_pixel(form: Form, kind: Any, side: int) -> None:
    case = Case(form, kind, Geometry(19, 21, (side, side)), sides=(side, side), seed=side)
    assert case.shape[2:] == (1, 1)
    case.check()


@FORM
@KIND
@pytest.mark.parametrize("sides", [(1, 300), (2, 301), (300, 1), (1, 1), (7, 47), (8, 48), (9, 49)])
def test_rows_of_any_length(form: Form, kind: Any, sides: tuple[int, int]) -> None:
    Case(form, kind, Geometry(17, 18, (3, 3), padding=(1, 1, 1, 1)), sides=sides, batch=3).check()
    Case(form, kind, Geometry(3, 4, (3, 5), (2, 3), (2, 1, 3, 1)), sides=sides).check()


@FORM
@KIND
@pytest.mark.parametrize("inputs", [127, 128, 129, 256, 300])
def test_more_inputs_than_are_done_at_a_time(form: Form, kind: Any, inputs: int) -> None:
    Case(form, kind, Geometry(inputs, 9, (3, 2)), keep=0.6, seed=inputs).check()


@FORM
@pytest.mark.parametrize("kind", ["stripes", "columns"])
def test_a_layer_without_fibres_is_its_bias(form: Form, kind: Any) -> None:
    case = Case(form, kind, Geometry(6, 35, (3, 3), groups=1), keep=0.0)
    assert case.given_bias is not None
    wanted = case.given_bias.view(1, -1, 1, 1).expand(case.shape)
    assert torch.equal(case.found(torch.full_like(case.x, NAN)), wanted)


# ---------------------------------------------------------------- what is no number


@settings(max_examples=120)
@given(case=cases(3e4), value=st.sampled_from([NAN, INF, -INF]), where=st.data())
def test_what_is_no_number_reaches_only_those_that_read_it(
    case: Case, value: float, where: st.DataObject
) -> None:
    case = replace(case, relu=case.relu and value != value)  # else relu may cut it off
    g, x = case.geometry, case.x
    at = tuple(where.draw(st.integers(0, n - 1)) for n in x.shape)
    spoilt = x.clone()
    spoilt[at] = value
    clean, found = case.found(), case.found(spoilt)

    mark = torch.zeros(x.shape)
    mark[at] = 1
    may = slid(mark, torch.ones_like(case.weight), g) > 0
    must = slid(mark, case.stays, g) > 0
    assert same_bits(found[~may], clean[~may]), case
    assert not found[must].isfinite().any(), case


@settings(max_examples=60)
@given(case=cases(3e4), where=st.data())
def test_a_filter_that_is_no_number_leaves_the_others_alone(
    case: Case, where: st.DataObject
) -> None:
    filter_ = where.draw(st.integers(0, case.geometry.out_channels - 1))
    others = torch.arange(case.geometry.out_channels) != filter_
    weight, bias = case.weight, case.tensor(case.geometry.out_channels, salt=3)
    found = []
    for value in (1.0, NAN):
        spoilt, its_bias = weight.clone(), bias.clone()
        spoilt[filter_] *= value
        its_bias[filter_] *= value
        packed = pack(spoilt, its_bias, case.geometry, case.form, case.kind, case.mask)
        found.append(convolve(packed, case.x, case.geometry, case.given_residual, relu=case.relu))
    assert same_bits(found[1][:, others], found[0][:, others]), case
    assert found[1][:, ~others].isnan().all(), case


@settings(max_examples=60)
@given(case=cases(3e4))
def test_it_cuts_below_zero_as_torch_does(case: Case) -> None:
    residual = case.tensor(*case.shape, salt=4).to(case.dtype)
    special = torch.tensor([NAN, INF, -INF, -0.0, 0.0, 1e-40, -1e-40]).repeat(residual.numel())
    chosen = case.tensor(*case.shape, salt=5) > 0.3
    residual[chosen] = special[: int(chosen.sum())].to(case.dtype)
    packed = case.packed()
    plain = convolve(packed, case.x, case.geometry, residual)
    cut = convolve(packed, case.x, case.geometry, residual, relu=True)
    assert same_bits(cut, torch.relu(plain)), case
    assert plain[residual.isnan()].isnan().all(), case


@FORM
def test_the_smallest_numbers_are_cut_and_kept_like_others(form: Form) -> None:
    shape = Geometry(3, 20, (1, 1))
    packed = pack(torch.full((20, 3, 1, 1), -1.0), None, shape, form)
    tiny = torch.full((2, 3, 3, 3), 1e-42)
    assert (convolve(packed, tiny, shape, relu=True) == 0).all()
    assert (convolve(packed, tiny, shape) < 0).all()


# ---------------------------------------------------------------- how tensors lie in memory

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "channels first": lambda x: x.contiguous(),
    "turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "part": lambda x: torch.full((x.shape[0], 2 * x.shape[1], x.shape[2] + 3, x.shape[3] + 2), NAN,
                                 dtype=x.dtype)[:, 1::2, 1:-2, 2:].copy_(x),
    "expanded": lambda x: x[:1].expand(x.shape),
    "flipped": lambda x: x.flip(3).flip(3),
    "odd start": lambda x: torch.zeros(x.numel() + 1, dtype=x.dtype)[1:].view(
        x.shape[0], x.shape[2], x.shape[3], x.shape[1]).permute(0, 3, 1, 2).copy_(x),
}  # fmt: skip


@FORM
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("half", [False, True])
def test_any_layout_will_do(form: Form, layout: str, half: bool) -> None:
    case = Case(form, half=half, residual=True)
    x, residual = LAYOUTS[layout](case.x), case.given_residual
    assert residual is not None
    packed = case.packed()
    found = convolve(packed, x, case.geometry, LAYOUTS[layout](residual))
    plain = [t.contiguous().clone() for t in (x, LAYOUTS[layout](residual))]
    assert torch.equal(found, convolve(packed, plain[0], case.geometry, plain[1]))
    assert found.is_contiguous(memory_format=torch.channels_last)


@FORM
@pytest.mark.parametrize("shape", [(2, 1, 6, 5), (1, 1, 1, 7), (2, 5, 1, 1), (3, 1, 1, 1)])
def test_sizes_of_one_do_not_hide_how_a_tensor_lies(form: Form, shape: tuple[int, ...]) -> None:
    geometry = Geometry(shape[1], 4, (1, 1))
    packed = pack(torch.randn(4, shape[1], 1, 1), None, geometry, form)
    x = torch.randn(shape)
    steps = [7 * s + 3 if n == 1 else s for n, s in zip(shape, x.stride(), strict=True)]
    odd = torch.empty_strided(shape, steps).copy_(x)
    assert torch.equal(convolve(packed, odd, geometry), convolve(packed, x, geometry))


@FORM
@pytest.mark.parametrize("half", [False, True])
def test_nothing_given_is_changed(form: Form, half: bool) -> None:
    case = Case(form, half=half, residual=True, relu=True)
    given_ = (case.packed(), case.x, case.given_residual)
    assert given_[2] is not None
    before = [t.clone() for t in given_ if t is not None]
    convolve(given_[0], given_[1], case.geometry, given_[2], relu=True)
    assert all(torch.equal(a, b) for a, b in zip(given_, before, strict=True) if a is not None)


# ---------------------------------------------------------------- what is refused


@FORM
def test_no_images_are_no_images(form: Form) -> None:
    case = Case(form)
    found = case.found(case.x[:0])
    assert found.shape == (0, *case.shape[1:])


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(2, 4, 6, 5),  # channels
        torch.randn(2, 5, 1, 1),  # less than the window
        torch.randn(5, 6, 5),  # one image without a batch
        torch.randn(2, 5, 6, 5, dtype=torch.float64),
        torch.randn(2, 5, 6, 5).half(),
        torch.empty(2, 5, 6, 5, device="meta"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x: Tensor) -> None:
    shape = Geometry(5, 7, (3, 3))
    packed = pack(torch.randn(7, 5, 3, 3), None, shape, "panels")
    with pytest.raises(EngineError, match=r"a kernel for 5 channels .* can't convolve \(.*, torch"):
        convolve(packed, x, shape)


@pytest.mark.parametrize(
    "residual",
    [
        torch.randn(2, 7, 6, 4),
        torch.randn(7, 6, 5),
        torch.randn(2, 7, 6, 5).bfloat16(),
        torch.empty(2, 7, 6, 5, device="meta"),
    ],
)
def test_residuals_that_do_not_fit_are_refused(residual: Tensor) -> None:
    case = Case("stripes")
    with pytest.raises(EngineError, match=r"a residual of \(.* can't be added to \(2, 7, 6, 5\)"):
        convolve(case.packed(), case.x, case.geometry, residual)


def test_rows_that_are_too_long_to_count_are_refused() -> None:
    """Those of an image, as wide as its padding makes it; no memory is asked for."""
    shape = Geometry(1, 2, (3, 1), (1, 2**30), (1, 1, 2**30, 0))
    packed = pack(torch.ones(2, 1, 3, 1), None, shape, "panels")
    with pytest.raises(EngineError, match=r"too long for the form 'panels'; pack .* as 'dots'"):
        convolve(packed, torch.ones(1, 1, 1, 1), shape)
    dots = pack(torch.ones(2, 1, 3, 1), None, shape, "dots")
    assert convolve(dots, torch.ones(1, 1, 1, 1), shape).flatten().tolist() == [0, 1, 0, 1]


def test_without_a_library_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("stripes")
    monkeypatch.setenv("TONSOR_KERNELS", "off")
    library.forget()
    try:
        with pytest.raises(EngineError, match="no compiled kernels here; `tonsor doctor` says why"):
            case.found()
    finally:
        library.forget()
