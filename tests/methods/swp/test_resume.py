"""A run that is stopped and gone on with is, bit for bit, the run that was not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.methods.swp.nets import drive, gone, made, pictures, put, sgd
from tests.refusals import said
from tonsor.errors import CheckpointError
from tonsor.methods.swp import FilterSkeleton, StripeLasso
from tonsor.methods.swp.run import stripe_method
from tonsor.train.checkpoint import read_state, write_state

WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "threshold": ("swp", {"threshold": 0.3, "alpha": 0.15}),
    "with revival": ("swp", {"threshold": 0.05, "alpha": 0.2}),
    "without revival": ("swp", {"threshold": 0.05, "alpha": 0.2, "revival": False}),
    "floor": ("swp", {"threshold": 0.9, "alpha": 0.05, "floor": 0.3}),
    "budget": ("swp", {"budget": "macs=40%", "ramp": 11, "every": 2}),
    "norms": ("swp", {"budget": "params=40%", "ramp": 11, "every": 3, "start": "norms"}),
    "groups": ("swp", {"budget": "params=40%", "ramp": 11, "every": 3, "stripe_group": 4}),
    "groups, with revival": ("swp", {"threshold": 0.05, "alpha": 0.2, "stripe_group": 2}),
    "skeletons alone": ("swp", {"threshold": 0.3, "alpha": 0.15, "skeleton_only": True}),
    "lasso": ("lasso", {"threshold": 0.2, "alpha": 0.05}),
    "lasso, groups": ("lasso", {"threshold": 0.2, "alpha": 0.05, "stripe_group": 5}),
    "lasso, relative": ("lasso", {"budget": "macs=40%", "ramp": 9, "every": 2, "relative": True}),
}


@pytest.mark.parametrize("stop", [0, 1, 6, 7, 12, 19])
@pytest.mark.parametrize("way", WAYS)
def test_a_method_goes_on_as_if_it_had_not_been_stopped(way: str, stop: int, tmp_path: Any) -> None:
    kind, options = WAYS[way]
    data = pictures(24)
    net, anatomy = made("residual")
    whole = stripe_method(net, anatomy, kind, **options)
    lost: list[int] = []
    drive(net, whole, data, watch=lambda _: lost.append(sum(map(len, gone(whole).values()))))
    assert max(lost) > 50

    ended, anatomy2 = made("residual")
    first = stripe_method(ended, anatomy2, kind, **options)
    optimizer = drive(ended, first, data[:stop])
    again, anatomy3 = made("residual", seed=4)
    second = stripe_method(again, anatomy3, kind, **options)
    again.load_state_dict(ended.state_dict())
    moving = sgd(again)
    moving.load_state_dict(optimizer.state_dict())
    write_state(tmp_path / "state", first.state_dict())
    second.load_state_dict(read_state(tmp_path / "state"))
    drive(again, second, data[stop:], optimizer=moving, first=stop)
    assert second.history == whole.history
    assert gone(second) == gone(whole)
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert second.finish() == whole.finish()


@pytest.mark.parametrize("kind", ["swp", "lasso"])
def test_an_average_of_weights_is_masked_when_it_is_put_back(kind: Any) -> None:
    net, anatomy = made("residual")
    method = stripe_method(net, anatomy, kind, budget="macs=40%", ramp=4, every=2)
    average = copy.deepcopy(net.state_dict())
    drive(net, method, pictures(6))
    state = method.state_dict()
    net.load_state_dict(average)
    method.load_state_dict(state)
    net.eval()
    x = torch.randn(3, 1, 8, 8)
    before = net(x)
    torch.testing.assert_close(method.finish().apply(net)(x), before, rtol=1e-4, atol=1e-5)


def test_what_is_held_for_the_floor_is_the_same_after_a_stop() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy)
    low = torch.full((6, 3, 3), 0.001)
    low[2, 1, 1] = 0.005
    put(method, {"conv1": low})
    method.after_step(0)
    state = copy.deepcopy(method.state_dict())
    twin, anatomy2 = made("chain")
    other = FilterSkeleton(twin, anatomy2)
    other.load_state_dict(state)
    for each in (method, other):  # momentum lifts one that is gone above the one that is held
        low = torch.zeros(6, 3, 3)
        low[2, 1, 1], low[3, 0, 0] = 0.005, 0.007
        put(each, {"conv1": low})
        each.after_step(1)
    assert gone(method) == gone(other)
    assert method.finish().made_by["notes"] == other.finish().made_by["notes"] != []


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("swp", {"alpha": 0.2}, "alpha='0.2'"),
        ("swp", {"threshold": 0.5}, "threshold='0.5'"),
        ("swp", {"budget": "macs=50%"}, "budget='macs=50%'"),
        ("swp", {"keep": ["first"]}, "layers='stem, second'"),
        ("swp", {"start": "norms"}, "start='norms'"),
        ("swp", {"revival": False}, "revival='False'"),
        ("swp", {"skeleton_only": True}, "skeleton_only='True'"),
        ("swp", {"floor": 3}, "floor='3'"),
        ("swp", {"every": 7}, "every='7'"),
        ("swp", {"ramp": 7}, "ramp='7'"),
        ("swp", {"stripe_group": 4}, "stripe_group='4'"),
        ("lasso", {"stripe_group": 4}, "stripe_group='4'"),
        ("lasso", {"alpha": 0.2}, "alpha='0.2'"),
        ("lasso", {"relative": True}, "relative='True'"),
    ],
)
def test_a_method_of_other_settings_is_not_gone_on_from(
    kind: Any, options: dict[str, Any], words: str
) -> None:
    net, anatomy = made("residual")
    state = stripe_method(net, anatomy, kind, **options).state_dict()
    net, anatomy = made("residual")
    other = stripe_method(net, anatomy, kind)
    before = copy.deepcopy(net.state_dict())
    assert f"begun with {words}" in said(CheckpointError, lambda: other.load_state_dict(state))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


def test_states_from_before_there_were_groups_are_gone_on_from() -> None:
    net, anatomy = made("residual")
    state = StripeLasso(net, anatomy).state_dict()
    del state["about"]["stripe_group"]
    StripeLasso(net, anatomy).load_state_dict(state)
    other = StripeLasso(net, anatomy, stripe_group=2)
    words = said(CheckpointError, lambda: other.load_state_dict(state))
    assert "begun with stripe_group='1', now it is '2'" in words


def test_a_method_after_another_plan_is_not_gone_on_from() -> None:
    net, anatomy = made("residual")
    method = StripeLasso(net, anatomy, budget="macs=60%", ramp=1, every=1)
    method.after_step(0)
    earlier = method.finish()
    state = StripeLasso(net, anatomy, after=earlier).state_dict()
    words = said(CheckpointError, lambda: StripeLasso(net, anatomy).load_state_dict(state))
    assert "begun with after='" in words
