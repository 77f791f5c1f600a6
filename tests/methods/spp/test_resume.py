"""A method that is stopped and gone on with is, bit for bit, the one that was not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tonsor
from tests.methods.spp.nets import chances, drive, gone, made, masks, pictures, sgd
from tests.refusals import said
from tonsor.errors import CheckpointError
from tonsor.methods.spp import ByChance
from tonsor.train.checkpoint import read_state, write_state

FAST: dict[str, Any] = {"ratio": 0.5, "interval": 2, "most": 0.3}
WAYS: dict[str, dict[str, Any]] = {
    "columns": {},
    "stripes": {"family": "stripes"},
    "channels": {"family": "channels"},
    "elementwise": {"elementwise": True},
    "channels, elementwise": {"family": "channels", "elementwise": True},
    "caffe": {"gradient": "caffe"},
    "history": {"history": 0.8, "scores": "size"},
    "budget": {"ratio": None, "budget": "params=50%"},
}


def begun(at: int = 0, **options: Any) -> tuple[Any, ByChance]:
    net, anatomy = made("residual", at)
    return net, ByChance(net, anatomy, **{**FAST, **options})


@pytest.mark.parametrize("stop", [0, 3, 8, 25])
@pytest.mark.parametrize("way", WAYS)
def test_a_method_goes_on_as_if_it_had_not_been_stopped(way: str, stop: int, tmp_path: Any) -> None:
    data = pictures(30)
    net, whole = begun(**WAYS[way])
    drive(net, whole, data)
    assert any(gone(whole).values())

    ended, first = begun(**WAYS[way])
    optimizer = drive(ended, first, data[:stop])
    again, second = begun(at=4, **WAYS[way])
    again.load_state_dict(ended.state_dict())
    moving = sgd(again)
    moving.load_state_dict(optimizer.state_dict())
    write_state(tmp_path / "state", first.state_dict())
    second.load_state_dict(read_state(tmp_path / "state"))
    for mine, theirs in zip(masks(again).values(), masks(ended).values(), strict=True):
        assert torch.equal(mine.drawn.expand_as(theirs.drawn), theirs.drawn)
        assert torch.equal(mine.kept.expand_as(theirs.kept), theirs.kept)
        assert mine.through == theirs.through
    drive(again, second, data[stop:], optimizer=moving, first=stop)
    assert second.history == whole.history
    assert gone(second) == gone(whole)
    assert all(torch.equal(a, b) for a, b in zip(chances(second), chances(whole), strict=True))
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert second.finish() == whole.finish()


@pytest.mark.parametrize("family", ["columns", "stripes", "channels"])
def test_an_average_of_weights_is_masked_when_it_is_put_back(family: Any) -> None:
    net, method = begun(family=family)
    average = copy.deepcopy(net.state_dict())
    drive(net, method, pictures(30))
    state = method.state_dict()
    net.load_state_dict(average)
    method.load_state_dict(state)
    net.eval()
    x = torch.randn(3, 1, 8, 8)
    before = net(x)
    torch.testing.assert_close(method.finish().apply(net)(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0.25}, "ratio='0.25'"),
        ({"ratio": {"stem": 0.25}}, "ratio="),
        ({"ratio": None, "budget": "macs=50%"}, "ratio='None'"),
        ({"family": "stripes"}, "family='stripes'"),
        ({"by": "l2"}, "by='l2'"),
        ({"interval": 3}, "interval='3'"),
        ({"most": 0.2}, "most='0.2'"),
        ({"centre": 0.5}, "centre='0.5'"),
        ({"shape": "linear"}, "shape='linear'"),
        ({"scores": "size"}, "scores='size'"),
        ({"alpha": "adaptive"}, "alpha='adaptive'"),
        ({"history": 0.5}, "history='0.5'"),
        ({"recovery": False}, "recovery='False'"),
        ({"guard": 30}, "guard='30'"),
        ({"elementwise": True}, "elementwise='True'"),
        ({"gradient": "caffe"}, "gradient='caffe'"),
        ({"seed": 5}, "seed='5'"),
    ],
)
def test_a_method_of_other_settings_is_not_gone_on_from(
    options: dict[str, Any], words: str
) -> None:
    state = begun(**options)[1].state_dict()
    net, other = begun()
    weights, before = copy.deepcopy(net.state_dict()), chances(other)
    assert f"begun with {words}" in said(CheckpointError, lambda: other.load_state_dict(state))
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(before, chances(other), strict=True))


def test_a_method_after_another_plan_or_of_other_layers_is_not_gone_on_from() -> None:
    net, anatomy = made("residual")
    earlier = tonsor.plan_columns(anatomy, "macs=70%")
    method = ByChance(net, anatomy, **FAST, after=earlier)
    state = method.state_dict()
    method.release()
    words = said(
        CheckpointError, lambda: ByChance(net, anatomy, **FAST).load_state_dict(state)
    )  # fmt: skip
    assert "begun with after='" in words
    state = begun(keep=["stem"])[1].state_dict()
    words = said(CheckpointError, lambda: begun()[1].load_state_dict(state))
    assert "['first', 'second'], now they are ['stem', 'first', 'second']" in words
