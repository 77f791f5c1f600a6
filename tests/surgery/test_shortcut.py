"""What stands in the place of a block: hands on, arranges, and fits channels."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tonsor.drops import Drop, Fit
from tonsor.surgery.shortcut import Passed, Shortcut, fitted


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.batch_first = nn.LayerNorm(4), True


class Block(nn.Module):
    """It has all kinds of attributes that other code may ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.stride, self.rate = "full", (2, (1, 1)), 0.5
        self.items, self.cache = [1], {"a": 1}
        self.inner, self.conv = Inner(), nn.Conv2d(3, 3, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return x


def shortcut(**more: Any) -> Shortcut:
    made: dict[str, Any] = {"takes": (0,), **more}
    return Shortcut(Block().eval(), Drop("b", "residual", ("b",), **made))


A, B = torch.randn(2, 4), torch.randn(2, 4)


@pytest.mark.parametrize(
    ("takes", "gives", "args", "kwargs", "wanted"),
    [
        ((0,), "x", (A,), {}, A),
        ((1,), "x", (B, A), {}, A),
        (("x",), "x", (), {"x": A}, A),
        ((0, 1), "x", ((B, A),), {}, A),
        (("x", "in"), "x", (), {"x": {"in": A}}, A),
        ((0,), "0", (A,), {}, torch.zeros(2, 4)),
        ((0,), {"tuple": ["x", {"is": None}]}, (A,), {}, (A, None)),
        ((0,), {"tuple": ["x", {"arg": ["mask"]}]}, (A,), {"mask": B}, (A, B)),
        ((0,), {"list": ["0", {"arg": [1, 0]}]}, (A, (B,)), {}, [torch.zeros(2, 4), B]),
        ((0,), {"dict": {"h": "x", "n": {"is": 3}}}, (A,), {}, {"h": A, "n": 3}),
        ((0,), {"tuple": []}, (A,), {}, ()),
    ],
)
def test_a_result_is_arranged(takes: Any, gives: Any, args: Any, kwargs: Any, wanted: Any) -> None:
    found = shortcut(takes=takes, gives=gives)(*args, **kwargs)
    assert type(found) is type(wanted)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_what_stays_keeps_its_name_and_is_passed_in_order() -> None:
    left = shortcut(through=("b.inner.norm", "relu()"))
    assert [n for n, _ in left.named_parameters()] == ["inner.norm.weight", "inner.norm.bias"]
    x = torch.randn(2, 4)
    assert torch.equal(left(x), nn.LayerNorm(4)(x).relu())
    assert str(left).startswith("Shortcut(\n  of Block, ['inner.norm', 'relu()']")


def test_plain_attributes_can_still_be_asked_for() -> None:
    left: Any = shortcut()
    assert (left.kind, left.stride, left.rate) == ("full", (2, (1, 1)), 0.5)
    assert left.inner.batch_first is True
    assert left.conv.stride == (2, 2)
    assert not hasattr(left, "cache")
    assert not hasattr(left.conv, "weight")
    assert list(left.modules()) == [left]
    with pytest.raises(AttributeError, match="'Shortcut' object has no attribute 'cache'"):
        _ = left.cache


def test_it_is_copied_and_pickled() -> None:
    left = shortcut(through=("b.inner.norm",), gives={"tuple": ["x"]})
    for other in (copy.deepcopy(left), pickle.loads(pickle.dumps(left))):
        assert torch.equal(other(A)[0], left(A)[0])
        assert other.training is left.training is False
    assert Passed()(A) is A


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 2))
def test_channels_are_padded_narrowed_or_folded(have: int, wanted: int, dim: int) -> None:
    shape = [2, 3, 3]
    shape[dim] = have
    x = torch.randn(shape, dtype=torch.float64)
    first = min(have, wanted)
    fits: tuple[Fit, ...] = ("slice", "narrow", "tile") if have <= wanted else ("narrow", "tile")
    for fit in fits:
        out = fitted(x, fit, wanted, dim)
        assert out.shape[dim] == wanted
        if fit != "tile" or have <= wanted:
            assert torch.equal(out.narrow(dim, 0, first), x.narrow(dim, 0, first))
            assert not out.narrow(dim, first, wanted - first).any()
        else:
            for i in range(wanted):
                mine = x.index_select(dim, torch.arange(i, have, wanted)).mean(dim)
                torch.testing.assert_close(out.select(dim, i), mine)
