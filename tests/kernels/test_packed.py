"""Packed weights: nothing is lost, nothing else is read, and foreign bytes are refused."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.kernels.cases import Case, cases
from tonsor.errors import EngineError
from tonsor.kernels.convolve import convolve
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, HEAD, MAGIC, Form, pack
from tonsor.kernels.unpacked import unpack

FORM = pytest.mark.parametrize("form", FORMS)
SHAPE = Geometry(5, 7, (3, 2))


def head(packed: Tensor) -> list[int]:
    return packed[: HEAD * 8].view(torch.int64).tolist()


# ---------------------------------------------------------------- what is packed


@settings(max_examples=200)
@given(case=cases())
def test_what_is_packed_comes_back(case: Case) -> None:
    """The weight of a case is NaN where nothing stays, so none of that was read."""
    weight, bias = unpack(case.packed())
    assert torch.equal(weight, case.weight.masked_fill(~case.stays, 0))
    wanted = case.given_bias
    assert torch.equal(bias, torch.zeros(len(bias)) if wanted is None else wanted)


@given(case=cases())
def test_the_same_is_packed_into_the_same_bytes(case: Case) -> None:
    assert torch.equal(case.packed(), case.packed())
    other = replace(case, bias=not case.bias).packed()
    assert len(other) == len(case.packed())


@given(case=cases())
def test_the_head_says_what_it_is(case: Case) -> None:
    g, packed = case.geometry, case.packed()
    found = head(packed)
    assert found[0].to_bytes(6, "little") == b"tonsor"
    assert found[2:7] == [FORMS.index(case.form), len(packed), g.in_channels, g.out_channels,
                          g.groups]  # fmt: skip
    assert found[7:13] == [*g.kernel, *g.stride, *g.dilation]
    assert all(place % 64 == 0 and HEAD * 8 <= place < len(packed) for place in found[13:])
    assert packed.data_ptr() % 64 == 0
    assert (packed.dtype, packed.dim()) == (torch.uint8, 1)


@given(case=cases(), where=st.data())
def test_less_that_stays_takes_less_room(case: Case, where: st.DataObject) -> None:
    case = replace(case, kind="stripes", form=where.draw(st.sampled_from(["stripes", "dots"])))
    mask = case.mask
    assert mask is not None
    sizes = []
    for kept in (np.zeros_like(mask), mask, np.ones_like(mask)):
        weight = torch.ones(case.weight.shape)
        packed = pack(weight, None, case.geometry, case.form, "stripes", kept)
        assert len(packed) >= 4 * int(kept.sum()) * case.geometry.inputs
        sizes.append(len(packed))
    assert sizes == sorted(sizes)


@given(case=cases())
def test_panels_share_a_tap_only_if_a_filter_has_it(case: Case) -> None:
    """What panels multiply in vain is what other filters of a panel have."""
    case = replace(case, form="panels")
    g, stays = case.geometry, case.stays.flatten(1)
    taps = sum(
        int(part.any(0).sum())
        for group in stays.split(g.filters) for part in group.split(16)
    )  # fmt: skip
    packed = case.packed()
    parts = packed[head(packed)[14] :][: 24 * g.groups].view(torch.int64).view(-1, 3).tolist()
    held = 0
    for count, first, _ in parts:
        lists = packed[first : first + 40 * count].view(torch.int64).view(-1, 5).tolist()
        held += sum(-(-filters // 16) * each for _, filters, each, _, _ in lists)
    assert held == taps


@FORM
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_types_are_packed_as_float32(form: Form, dtype: torch.dtype) -> None:
    weight, bias = torch.randn(7, 5, 3, 2).to(dtype), torch.randn(7).to(dtype).requires_grad_()
    found = unpack(
        pack(weight.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2), bias, SHAPE, form)
    )
    assert torch.equal(found[0], weight.float())
    assert torch.equal(found[1], bias.detach().float())


# ---------------------------------------------------------------- where it lies


@FORM
def test_copies_files_and_parts_of_other_tensors_work(form: Form) -> None:
    case = Case(form, keep=0.6)
    packed, file = case.packed(), io.BytesIO()
    torch.save(packed, file)
    file.seek(0)
    longer = torch.full((len(packed) + 200,), 255, dtype=torch.uint8)
    both = packed.repeat_interleave(2)[::2]
    more = torch.cat([packed, packed.flip(0)])
    for other in (packed.clone(), torch.load(file, weights_only=True), both, more):
        assert torch.equal(convolve(other, case.x, case.geometry), case.found())
    for at in (1, 2, 4, 8, 100):
        places = longer[at : at + len(packed)].copy_(packed)
        assert torch.equal(convolve(places, case.x, case.geometry), case.found())
        assert torch.equal(unpack(places)[0], unpack(packed)[0])


# ---------------------------------------------------------------- what is refused


@FORM
@settings(max_examples=40)
@given(where=st.data())
def test_bytes_that_are_not_whole_are_refused(form: Form, where: st.DataObject) -> None:
    case = Case(form)
    packed = case.packed()
    torn = packed[: where.draw(st.integers(0, len(packed) - 1))]
    for read in (unpack, lambda p: convolve(p, case.x, case.geometry)):
        with pytest.raises(EngineError, match=r"no (packed )?weights.*pack them anew"):
            read(torn)


@FORM
@given(data=st.binary(max_size=600))
def test_foreign_bytes_are_refused(form: Form, data: bytes) -> None:
    case = Case(form)
    foreign = torch.tensor(list(data), dtype=torch.uint8)
    for read in (unpack, lambda p: convolve(p, case.x, case.geometry)):
        with pytest.raises(EngineError, match="pack them anew"):
            read(foreign)


def test_what_is_no_row_of_bytes_is_refused() -> None:
    case = Case("stripes")
    packed = case.packed()
    for other in (packed.float(), packed.view(torch.int64), packed.to("meta"), packed * 0):
        with pytest.raises(EngineError, match=r"no packed weights.*pack them anew"):
            convolve(other, case.x, case.geometry)


@FORM
def test_another_version_is_told(form: Form) -> None:
    case = Case(form)
    packed = case.packed()
    packed[8] += 1
    with pytest.raises(EngineError, match="another version of tonsor; pack them anew"):
        convolve(packed, case.x, case.geometry)
    with pytest.raises(EngineError, match="this version of tonsor packed; pack them anew"):
        unpack(packed)


@pytest.mark.parametrize("form", [-1, 3, 2**40])
def test_a_form_that_nobody_knows_is_refused(form: int) -> None:
    case = Case("stripes")
    packed = case.packed()
    packed[16:24] = torch.tensor([form]).view(torch.uint8)
    for read in (unpack, lambda p: convolve(p, case.x, case.geometry)):
        with pytest.raises(EngineError, match="pack them anew"):
            read(packed)


@pytest.mark.parametrize("changed", [
    {"out_channels": 14}, {"kernel": (2, 3)}, {"stride": (2, 1)}, {"dilation": (1, 2)},
])  # fmt: skip
def test_weights_for_another_convolution_are_refused(changed: dict[str, Any]) -> None:
    """The kernel goes by what is packed, and the output is as large as is asked for."""
    packed = pack(torch.randn(7, 5, 3, 2), None, SHAPE, "panels")
    with pytest.raises(EngineError, match=r"packed for another convolution than .* pack them for"):
        convolve(packed, torch.randn(1, 5, 9, 9), replace(SHAPE, **changed))
    convolve(packed, torch.randn(1, 5, 9, 9), replace(SHAPE, padding=(1, 2, 3, 4)))


@FORM
@pytest.mark.parametrize(("changed", "said"), [
    ({"weight": torch.randn(7, 5, 2, 3)}, r"a weight of the shape \(7, 5, 2, 3\) can't be packed"),
    ({"bias": torch.randn(6)}, r"a bias of the shape \(6,\) can't be packed as \(7,\)"),
    ({"mask": np.ones((5, 6), np.bool_)}, r"a mask of stripes of the shape \(5, 6\)"),
    ({"kind": "columns"}, r"a mask of columns of the shape \(7, 6\).*as \(5, 6\)"),
    ({"kind": None}, "a mask and its kind go together"),
    ({"mask": None}, "a mask and its kind go together"),
    ({"form": "rows"}, "no kernel reads the form 'rows'; name one of stripes, panels, dots"),
])  # fmt: skip
def test_what_does_not_fit_together_is_not_packed(
    form: Form, changed: dict[str, Any], said: str
) -> None:
    fits: dict[str, Any] = {
        "weight": torch.randn(7, 5, 3, 2), "bias": None, "geometry": SHAPE, "form": form,
        "kind": "stripes", "mask": np.ones((7, 6), np.bool_),
    }  # fmt: skip
    pack(**fits)
    with pytest.raises(EngineError, match=said):
        pack(**fits | changed)


def test_kernels_longer_than_stripes_take_go_another_way() -> None:
    for long in (64, 65):
        for form in FORMS:
            case = Case(form, "stripes", Geometry(2, 3, (1, long)), sides=(2, 70))
            if form == "stripes" and long > 64:
                with pytest.raises(EngineError, match=r"64 places at most .* 'panels' or 'dots'"):
                    case.packed()
            else:
                case.check()


def test_the_mark_is_the_name() -> None:
    assert MAGIC.to_bytes(6, "little") == b"tonsor"
