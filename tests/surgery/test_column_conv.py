"""Layers of columns compute what the masked convolution does, whichever way they are executed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.surgery.column_cases import WAYS, cases, in_parts, kept_of, layer_of, masked
from tests.surgery.stripe_cases import Case, masks
from tonsor.errors import SurgeryError
from tonsor.surgery.column_conv import ColumnConv1d, ColumnConv2d, ColumnConv3d, columned
from tonsor.surgery.fibre_tensors import fibres_of, mask_fibres_, write_fibres_

RUNS = ("dense", "columns")
# Torch warns of its own "same" with even kernels, which a layer of columns pads itself.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


# ---------------------------------------------------------------- what it computes


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100)
@given(case=cases())
def test_every_way_computes_the_masked_convolution(way: str, case: Case) -> None:
    run, how = WAYS[way]
    x, wanted = case.x(), masked(case.conv(), case.mask)(case.x())
    layer = layer_of(case, run)
    with how():
        found = [layer(x)]
        with torch.no_grad():
            found += [layer(x), layer(x)]  # the second time with what the first one remembers
    for y in found:
        assert y.shape == wanted.shape
        torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(x, case.x(), rtol=0, atol=0)
    torch.testing.assert_close(layer.bias, case.conv().bias, rtol=0, atol=0)


@settings(max_examples=60)
@given(case=cases(), more=st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_inputs_may_have_another_size_each_time(case: Case, more: list[int]) -> None:
    layer, conv = layer_of(case, "columns"), masked(case.conv(), case.mask)
    sizes = [n + some for n, some in zip(case.shape[-case.rank :], more, strict=False)]
    other = torch.randn(*case.shape[: -case.rank], *sizes, dtype=torch.float64)
    with torch.no_grad():
        for x in (case.x(), other, case.x()):
            torch.testing.assert_close(layer(x), conv(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("few", [0, 1 << 30])
@pytest.mark.parametrize("run", RUNS)
def test_nothing_is_added_to_the_bias_itself(run: Any, few: int) -> None:
    layer = columned(nn.Conv2d(3, 4, 3, padding=1).eval(), np.ones((3, 9), dtype=bool), run)
    assert layer.bias is not None
    before = layer.bias.detach().clone()
    with torch.no_grad(), in_parts(1 << 21, few):
        layer(torch.randn(1, 3, 1, 1))  # of which the output is as large as the bias
    assert torch.equal(layer.bias, before)


def _in_the_middle(x: Tensor) -> Tensor:
    room = torch.full((2 * x.numel() + 7,), torch.nan, dtype=x.dtype)
    return room[5 : 5 + x.numel()].view(x.shape).copy_(x)


def _every_other(x: Tensor) -> Tensor:
    room = torch.full([2 * n for n in x.shape], torch.nan, dtype=x.dtype)
    return room[tuple(slice(None, None, 2) for _ in x.shape)].copy_(x)


LAYOUTS: Any = {
    "last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "turned": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "in the middle": _in_the_middle,
    "every other": _every_other,
    "one row for all": lambda x: x[..., :1].expand(x.shape),
    "one sample for all": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "way", ["dense", "columns", "columns, some rows at a time", "columns for graphs"]
)
@settings(max_examples=15)
@given(case=cases())
def test_the_layout_of_the_input_makes_no_difference(way: str, layout: str, case: Case) -> None:
    run, how = WAYS[way]
    layer, x = layer_of(case, run), LAYOUTS[layout](case.x())
    wanted = masked(case.conv(), case.mask)(x.contiguous())
    with how():
        torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), wanted, rtol=1e-12, atol=1e-12)
            plain = layer(x.contiguous())
        torch.testing.assert_close(plain, wanted, rtol=1e-12, atol=1e-12)


# In lower precision torch itself is wrong, or ends the process, in odd geometries on some CPUs.
USUAL = [
    Case(
        {"in_channels": 16, "out_channels": 16, "kernel_size": (size, size),
         "stride": (stride, stride), "padding": (size // 2, size // 2), "bias": True},
        2, np.random.default_rng(size).random((16, size * size)) < 0.4, (2, 16, 12, 12), stride,
    )
    for size in (3, 5) for stride in (1, 2)
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
@settings(max_examples=60)
@given(case=cases(plain=True))
def test_errors_are_those_of_float32(run: str, case: Case) -> None:
    near_in(run, torch.float32, case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", USUAL)
@pytest.mark.parametrize("run", RUNS)
def test_errors_are_those_of_the_precision(run: str, dtype: torch.dtype, case: Case) -> None:
    near_in(run, dtype, case)


def near_in(run: str, dtype: torch.dtype, case: Case) -> None:
    conv: Any = masked(case.conv(dtype), case.mask).double()
    x = case.x(dtype)
    with torch.no_grad():
        found, wanted = layer_of(case, run, dtype)(x), conv(x.double())
        for parameter in conv.parameters():
            parameter.abs_()
        size = conv(x.double().abs())
    many = 4 + case.mask.size
    assert found.dtype == dtype
    off = (found.double() - wanted).abs()
    assert (off <= many * torch.finfo(dtype).eps * size + 1e-6).all()


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=40)
@given(case=cases(), training=st.booleans())
def test_gradients_are_those_of_the_masked_convolution(
    way: str, training: bool, case: Case
) -> None:
    run, how = WAYS[way]
    conv: Any = masked(case.conv(), case.mask)
    layer = layer_of(case, run).train(training)
    ours, theirs = case.x().requires_grad_(), case.x().requires_grad_()
    with how():
        wanted, found = conv(theirs), layer(ours)
    toward = torch.randn_like(wanted)
    wanted.backward(toward)
    found.backward(toward)
    same: Any = {"rtol": 1e-11, "atol": 1e-11}
    torch.testing.assert_close(ours.grad, theirs.grad, **same)
    torch.testing.assert_close(layer.weight.grad, kept_of(conv.weight.grad, case.mask), **same)
    assert (layer.bias is None) == (conv.bias is None)
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias.grad, conv.bias.grad, **same)


@pytest.mark.parametrize("which", ["x", "weight", "bias"])
@settings(max_examples=30)
@given(case=cases())
def test_one_gradient_alone_is_found_too(which: str, case: Case) -> None:
    conv: Any = masked(case.conv(), case.mask).requires_grad_(False)
    layer, x, y = layer_of(case, "columns").requires_grad_(False), case.x(), case.x()
    if which == "x":
        x.requires_grad_()
        y.requires_grad_()
    for mine in (layer, conv):
        if which != "x" and getattr(mine, which) is not None:
            getattr(mine, which).requires_grad_()
    found, wanted = layer(x), conv(y)
    assert found.requires_grad == wanted.requires_grad
    if wanted.requires_grad:
        toward = torch.randn_like(wanted)
        wanted.backward(toward)
        found.backward(toward)
        theirs = {"x": y, "weight": conv.weight, "bias": conv.bias}[which].grad
        ours = {"x": x, "weight": layer.weight, "bias": layer.bias}[which]
        theirs = kept_of(theirs, case.mask) if which == "weight" else theirs
        assert ours is not None
        torch.testing.assert_close(ours.grad, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("run", RUNS)
def test_gradients_are_derivatives(run: str) -> None:
    mask = np.random.default_rng(0).random((2, 9)) < 0.5
    given: Any = {"stride": 2, "padding": 1, "dtype": torch.float64}
    layer = columned(nn.Conv2d(2, 3, 3, **given).eval(), mask, run)  # pyright: ignore
    tensors: Any = (layer.weight, layer.bias)

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    x = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolve, (x, *tensors))
    assert torch.autograd.gradgradcheck(convolve, (x, *tensors))


@pytest.mark.parametrize("kind", ["some", "none", "none of a batch"])
@pytest.mark.parametrize(
    "way", ["dense", "columns", "columns, some rows at a time", "columns for graphs"]
)
def test_what_autocast_makes_of_it_is_what_it_makes_of_a_convolution(way: str, kind: str) -> None:
    run, how = WAYS[way]
    mask = np.random.default_rng(0).random((4, 9)) < (0 if kind == "none" else 0.4)
    for bias in (True, False):
        conv = nn.Conv2d(4, 6, 3, bias=bias).eval()
        layer = columned(conv, mask, run)
        x = torch.randn(0 if kind == "none of a batch" else 2, 4, 12, 12)
        for grad in (False, True):
            with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad), how():
                wanted, found = masked(conv, mask)(x), layer(x)
                from_low = layer(x.bfloat16())
            assert found.dtype == wanted.dtype == from_low.dtype == torch.bfloat16
            torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.03)
            torch.testing.assert_close(from_low, wanted, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("run", RUNS)
def test_it_runs_under_transforms_of_functions(run: Any) -> None:
    mask = np.random.default_rng(0).random((4, 9)) < 0.4
    conv = nn.Conv2d(4, 6, 3, dtype=torch.float64).eval()
    layer, x = columned(conv, mask, run), torch.randn(3, 2, 4, 6, 6, dtype=torch.float64)
    wanted = torch.stack([masked(conv, mask)(part) for part in x])
    many = torch.stack([layer.weight, 2 * layer.weight, 3 * layer.weight]).detach()
    with torch.no_grad():
        torch.testing.assert_close(torch.vmap(layer)(x), wanted)
        found = torch.vmap(lambda w, y: torch.func.functional_call(layer, {"weight": w}, (y,)))(
            many, x
        )
        layer.weight.mul_(3)
        torch.testing.assert_close(found[2], layer(x[2]))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((2, 3, 2, 9), "Kernel size can't be greater"),
        ((2, 3, 0, 9), "Kernel size can't be greater"),
        ((2, 5, 8, 8), "to have 3 channels, but got 5"),
        ((5, 8, 8), "to have 3 channels, but got 5"),
        ((8, 8), "Expected 3D .* or 4D"),
        ((1, 2, 3, 8, 8), "Expected 3D .* or 4D"),
    ],
)
def test_what_no_convolution_takes_is_refused(run: Any, shape: Any, said: str) -> None:
    for mask in (np.eye(3, 9, dtype=bool), np.zeros((3, 9), dtype=bool)):
        layer = columned(nn.Conv2d(3, 4, 3).eval(), mask, run)
        with pytest.raises(RuntimeError, match=said):
            layer(torch.randn(shape))
        with pytest.raises(RuntimeError, match=r"(?i)type"):
            layer(torch.randn(2, 3, 8, 8, dtype=torch.float64))


# ---------------------------------------------------------------- what it is made of


@given(cases())
def test_columns_are_taken_out_and_written_back(case: Case) -> None:
    conv: Any = case.conv()
    taken = fibres_of("columns", conv.weight, case.mask)
    assert torch.equal(taken, kept_of(conv.weight.detach(), case.mask))
    zeroed: Any = masked(conv, case.mask)
    blank = torch.zeros_like(conv.weight)
    write_fibres_("columns", blank, taken, case.mask)
    assert torch.equal(blank, zeroed.weight)
    over = conv.weight.detach().clone()
    write_fibres_("columns", over, 2 * taken, case.mask)
    assert torch.equal(over, conv.weight + zeroed.weight)  # the others stay as they were
    assert torch.equal(layer_of(case).dense_weight(), zeroed.weight)
    mask_fibres_("columns", conv.weight, case.mask)
    assert torch.equal(conv.weight, zeroed.weight)


@given(st.data())
def test_what_is_learned_of_a_convolution_comes_along(data: Any) -> None:
    mask = data.draw(masks(2, 3))
    conv = nn.Conv1d(2, 4, 3).train(data.draw(st.booleans()))
    conv.weight.grad = torch.randn_like(conv.weight)
    conv.weight.requires_grad_(data.draw(st.booleans()))
    layer = columned(conv, mask)
    assert layer.training == conv.training
    assert layer.weight.requires_grad == conv.weight.requires_grad
    assert layer.bias is conv.bias
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, kept_of(conv.weight.grad, mask))
    assert layer.weight.data_ptr() != conv.weight.data_ptr()


def test_weights_are_drawn_as_those_of_a_whole_convolution() -> None:
    torch.manual_seed(0)
    mask = np.random.default_rng(0).random((16, 9)) < 0.3
    layer, bound = ColumnConv2d(16, 64, mask, (3, 3)), 1 / math.sqrt(16 * 9)
    for tensor in (layer.weight, layer.bias):
        assert tensor is not None
        assert bound * 0.9 < tensor.abs().max() <= bound
        assert tensor.detach().std().item() == pytest.approx(bound / math.sqrt(3), rel=0.2)


def test_how_it_runs_is_guessed_where_nothing_is_said() -> None:
    few, many = np.zeros((128, 9), dtype=bool), np.ones((128, 9), dtype=bool)
    few[:, :3] = True
    assert ColumnConv2d(128, 128, few, (3, 3)).run == "columns"
    assert ColumnConv2d(128, 128, many, (3, 3)).run == "dense"
    assert ColumnConv2d(128, 16, few, (3, 3)).run == "dense"
    assert ColumnConv2d(16, 128, few[:16], (3, 3)).run == "dense"
    assert ColumnConv2d(128, 128, few, (3, 3), groups=2).run == "dense"
    assert ColumnConv2d(16, 16, few[:16], (3, 3), run="columns").run == "columns"


def test_what_it_says_of_itself() -> None:
    mask = np.zeros((64, 9), dtype=bool)
    mask.reshape(-1)[:324] = True
    assert repr(ColumnConv2d(64, 8, mask, (3, 3))) == "ColumnConv2d(64, 8, columns=324/576)"
    assert repr(ColumnConv2d(64, 8, mask, (3, 3), stride=(2, 1), dilation=3, groups=2)) == (
        "ColumnConv2d(64, 8, columns=324/576, stride=(2, 1), dilation=3, groups=2)"
    )
    assert repr(ColumnConv1d(64, 8, mask, (9,))) == "ColumnConv1d(64, 8, columns=324/576)"
    assert repr(ColumnConv3d(64, 8, mask, (1, 3, 3))) == "ColumnConv3d(64, 8, columns=324/576)"


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(SurgeryError, match=r"64 inputs .* \(64, 9\), \[input, .* but \(8, 9\) was"):
        ColumnConv2d(64, 8, np.ones((8, 9), dtype=bool), (3, 3))
