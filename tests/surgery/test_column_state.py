"""Layers of columns are saved, loaded, copied, moved and changed without ever being stale."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tonsor.graph.clone import clone
from tonsor.surgery.column_conv import ColumnConv, ColumnConv2d, columned

MASK = np.random.default_rng(0).random((4, 9)) < 0.4
RUNS = ("dense", "columns")


def made(run: Any = "dense", mask: Any = MASK) -> ColumnConv:
    torch.manual_seed(0)
    return columned(nn.Conv2d(4, 8, 3, padding=1).eval(), mask, run)


def x(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1)).to(dtype)


def wanted(layer: ColumnConv, x: Tensor) -> Tensor:
    """Compute what a layer should with a convolution that is made for this one time."""
    conv: Any = nn.Conv2d(4, 8, 3, padding=1, dtype=layer.weight.dtype)
    with torch.no_grad():
        conv.weight.zero_()
        for row, (position, input_) in zip(layer.weight, np.argwhere(MASK.T), strict=True):
            conv.weight[:, input_, position // 3, position % 3] = row
        conv.bias.copy_(layer.bias)
        return conv(x)


# ---------------------------------------------------------------- saved and loaded


def test_a_state_is_loaded_into_a_layer_of_the_same_columns() -> None:
    one, other = made(), made()
    state = one.state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == {
        "weight": (int(MASK.sum()), 8), "bias": (8,), "kept": (4, 3, 3),
    }  # fmt: skip
    with torch.no_grad():
        other.weight.zero_()
        other(x())
    other.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(other(x()), one(x()))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("mask", [np.roll(MASK, 1, axis=0), np.ones((4, 9), dtype=bool)])
def test_the_state_of_other_columns_is_refused(mask: Any, strict: bool) -> None:
    assert not np.array_equal(mask, MASK)
    one, inner = nn.Sequential(made(mask=mask)), made()
    other = nn.Sequential(inner)
    before = inner.weight.clone()
    with pytest.raises(RuntimeError, match=r"'0' holds other columns than .* apply the plan"):
        other.load_state_dict(one.state_dict(), strict=strict)
    assert torch.equal(inner.weight, before)


def test_a_layer_without_values_gets_those_of_a_state() -> None:
    state = made().state_dict()
    with torch.no_grad():
        expected = made()(x())
    for load in ("to_empty", "assign"):
        layer = ColumnConv2d(4, 8, MASK, (3, 3), padding=1, device="meta").eval()
        assert layer(torch.empty(2, 4, 6, 6, device="meta")).shape == (2, 8, 6, 6)
        if load == "to_empty":
            layer.to_empty(device="cpu")
        layer.load_state_dict(state, assign=load == "assign")
        assert all(not t.is_meta for t in (*layer.buffers(), *layer.parameters()))
        for run in RUNS:
            layer.run = run
            with torch.no_grad():
                torch.testing.assert_close(layer(x()), expected)
    other = ColumnConv2d(4, 8, np.roll(MASK, 1, axis=0), (3, 3), device="meta")
    with pytest.raises(RuntimeError, match="holds other columns"):
        other.load_state_dict(state, assign=True)


@pytest.mark.parametrize("run", RUNS)
def test_a_layer_without_values_computes_shapes(run: Any) -> None:
    layer = made(run).to("meta")
    with torch.no_grad():
        assert layer(torch.empty(2, 4, 6, 6, device="meta")).shape == (2, 8, 6, 6)


# ---------------------------------------------------------------- copied


def by_saving(layer: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "save": by_saving,
    "clone": lambda layer: clone(layer, lambda _, t: copy.deepcopy(t)),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("run", RUNS)
def test_a_copy_is_one_and_shares_nothing(run: Any, way: str) -> None:
    layer = made(run)
    with torch.no_grad():
        expected = layer(x())
        other = COPIES[way](layer)
        assert (type(other), repr(other), other.run) == (ColumnConv2d, repr(layer), run)
        assert torch.equal(other(x()), expected)
        other.weight.mul_(2)
        other.bias.add_(1)
        torch.testing.assert_close(other(x()), wanted(other, x()))
        assert torch.equal(layer(x()), expected)
        layer.weight.mul_(3)
        torch.testing.assert_close(layer(x()), wanted(layer, x()))
        torch.testing.assert_close(other(x()), wanted(other, x()))


@pytest.mark.parametrize("run", RUNS)
def test_what_is_remembered_is_not_saved(run: Any) -> None:
    layer = made(run)
    before = len(pickle.dumps(layer))
    with torch.no_grad():
        layer(x())
    assert len(pickle.dumps(layer)) == before


# ---------------------------------------------------------------- changed


def _step(layer: Any) -> None:
    layer.weight.grad = torch.randn_like(layer.weight)
    torch.optim.SGD(layer.parameters(), lr=0.5).step()


def _trained(layer: Any) -> None:
    layer.train()(x().to(layer.weight.dtype)).square().sum().backward()
    torch.optim.Adam(layer.parameters(), lr=0.5).step()
    layer.eval()


def _replaced(layer: Any) -> None:
    layer.weight = nn.Parameter(torch.randn_like(layer.weight))


def _other_data(layer: Any) -> None:
    layer.weight.data = torch.randn_like(layer.weight)


def _moved_and_changed(layer: Any) -> None:
    """Free the memory that the weight lay in, so that the next weight may come to lie there."""
    for _ in range(3):
        layer.weight.data = torch.randn_like(layer.weight)


def _swapped(layer: Any) -> None:
    torch.utils.swap_tensors(layer.weight, nn.Parameter(torch.randn_like(layer.weight)))


def _in_inference_mode(layer: Any) -> None:
    with torch.inference_mode():
        layer.weight.mul_(2)


def _written_between_modes(layer: Any) -> None:
    layer.weight.data.mul_(2)
    layer.eval()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "in place": lambda layer: layer.weight.detach().mul_(-1),
    "a part": lambda layer: layer.weight.detach()[3].mul_(7),
    "step": _step,
    "training": _trained,
    "loaded": lambda layer: layer.load_state_dict(
        {n: t if n == "kept" else t + 1 for n, t in layer.state_dict().items()}
    ),
    "assigned": lambda layer: layer.load_state_dict(
        {n: t if n == "kept" else t + 1 for n, t in layer.state_dict().items()}, assign=True
    ),
    "replaced": _replaced,
    "other data": _other_data,
    "other data in turns": _moved_and_changed,
    "swapped": _swapped,
    "rounded": lambda layer: layer.to(torch.bfloat16).to(torch.float32),
    "double": lambda layer: layer.to(torch.float64),
    "half": lambda layer: layer.half(),
    "inference mode": _in_inference_mode,
    "written between modes": _written_between_modes,
    "through memory that others share": lambda layer: layer.weight.detach().t().mul_(2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("run", RUNS)
def test_what_is_remembered_is_never_stale(run: Any, change: str) -> None:
    layer = made(run)
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
        with mode():
            layer(x(layer.weight.dtype))
        before = layer.weight.detach().clone()
        CHANGES[change](layer)
        given = x(layer.weight.dtype)
        with mode():
            found = layer(given)
        close: Any = {"rtol": 2e-2, "atol": 2e-2} if change == "half" else {}
        torch.testing.assert_close(found, wanted(layer, given), **close)
        if change not in ("double", "half", "rounded"):
            assert not torch.equal(layer.weight, before)


def test_a_weight_is_filled_in_once_for_as_long_as_it_stays() -> None:
    layer = made()
    with torch.no_grad():
        first = layer._weight_for(x())
        assert layer._weight_for(x()) is first
        last = layer._weight_for(x().to(memory_format=torch.channels_last))
        assert last is not first
        assert last.is_contiguous(memory_format=torch.channels_last)
    assert layer._weight_for(x()) is not layer._weight_for(x())
    assert layer._weight_for(x()).requires_grad


def test_where_columns_start_is_found_once_for_inputs_of_one_size() -> None:
    layer, taps = made("columns"), torch.tensor([[0, 3], [1, 0], [2, 2]])
    first = layer._starts.of(taps, (5, 7), (1, 2))
    assert first.tolist() == [0 + 1 * 7 + 2 * 2, 3 * 35 + 2 * 2]
    assert layer._starts.of(taps, torch.Size((5, 7)), (1, 2)) is first
    assert layer._starts.of(taps, (7, 5), (1, 2)).tolist() == [0 + 1 * 5 + 2 * 2, 3 * 35 + 2 * 2]
    assert layer._starts.of(taps + 1, (7, 5), (1, 2)).tolist() != first.tolist()
    with torch.inference_mode():
        layer._starts.of(taps, (9, 9), (1, 2))
    assert not layer._starts.of(taps, (9, 9), (1, 2)).is_inference()


@pytest.mark.parametrize("run", RUNS)
def test_what_fake_tensors_leave_is_no_harm(run: Any) -> None:
    layer = made(run)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert layer(torch.empty(2, 4, 6, 6)).shape == (2, 8, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x()), wanted(layer, x()))


@pytest.mark.parametrize("run", RUNS)
def test_inference_mode_leaves_nothing_that_later_modes_choke_on(run: Any) -> None:
    layer = made(run)
    with torch.inference_mode():
        inside = layer(x())
    given = x().requires_grad_()
    outside = layer(given)
    outside.sum().backward()
    torch.testing.assert_close(outside.detach(), inside)
    assert layer.weight.grad is not None
    with torch.inference_mode():
        born = made(run)
        assert torch.equal(born(x()), inside)
        born.weight.mul_(2)
        torch.testing.assert_close(born(x()), wanted(born, x()))


@pytest.mark.parametrize("run", RUNS)
def test_converted_layers_compute_in_their_own_type(run: Any) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        layer = made(run).to(dtype)
        assert layer.kept.dtype == torch.bool
        assert layer.place.dtype == layer.taps.dtype == torch.int64
        with torch.no_grad():
            found = layer(x(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found, wanted(layer, x(dtype)), rtol=2e-2, atol=2e-2)
