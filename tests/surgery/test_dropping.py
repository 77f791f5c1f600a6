"""Plans that remove blocks are plans: merged, rebased, undone, saved, with optimizers and all."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.families.blocks.check import found, going, ready, same, without
from tests.refusals import said
from tonsor import zoo
from tonsor.errors import PlanError
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.select.drop import drop_plan
from tonsor.surgery.dropping import gone, joined_drops, later_drops

ACTS = {"relu": nn.ReLU, "silu": nn.SiLU, "relu6": nn.ReLU6, "elu": nn.ELU, "tanh": nn.Tanh}


class Unit(nn.Module):
    """A residual block in one of the usual styles, with a switch that is its oracle."""

    def __init__(self, a: int, b: int, act: str, *, pre: bool, first: bool, inplace: bool) -> None:
        super().__init__()
        self.off, self.pre, self.first, self.inplace = False, pre, first, inplace
        self.norm = nn.BatchNorm2d(a if pre else b)
        self.conv = nn.Conv2d(a, b, 3, padding=1)
        self.act = ACTS[act]()
        self.around = nn.Identity() if a == b else nn.Conv2d(a, b, 1)

    def forward(self, x: Tensor) -> Tensor:
        f = self.conv(self.act(self.norm(x))) if self.pre else self.norm(self.conv(x))
        f = f * 0.0 if self.off else f
        shortcut = self.around(x)
        if self.inplace:
            f = f.clone()
            f += shortcut
            out = f
        else:
            out = f + shortcut if self.first else shortcut + f
        return out if self.pre else self.act(out)


@st.composite
def nets(draw: Any) -> tuple[Any, list[str], list[str]]:
    """A network of random blocks, the names of those that may go, and some of them."""
    widths = draw(st.lists(st.integers(1, 3).map(lambda w: 2 * w), min_size=2, max_size=6))
    act, pre = draw(st.sampled_from(sorted(ACTS))), draw(st.booleans())
    units = [
        Unit(a, b, act, pre=pre, first=draw(st.booleans()), inplace=draw(st.booleans()))
        for a, b in pairwise(widths)
    ]
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, widths[0], 1), nn.BatchNorm2d(widths[0]))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 3)
    net = nn.Sequential(stem, *units, *head)
    free = [str(i) for i, u in enumerate(units, start=1) if isinstance(u.around, nn.Identity)]
    chosen = draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    return ready(net), free, chosen


X = tonsor.Inputs(torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0)))


@given(nets())
@settings(max_examples=20)
def test_any_blocks_of_any_residual_net(case: tuple[Any, list[str], list[str]]) -> None:
    net, free, chosen = case
    anatomy, blocks = found(net, X)
    assert [n for n in going(blocks) if isinstance(net.get_submodule(n), Unit)] == free
    plan, slim = without(anatomy, blocks, chosen)
    for name in chosen:
        net.get_submodule(name).off = True
    assert same(slim, net, X)
    for name in chosen:
        net.get_submodule(name).off = False
    assert plan_from_json(plan_to_json(plan)) == plan


def resnet() -> tuple[Any, tonsor.Inputs]:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return ready(zoo.build("resnet20", width=0.25)), tonsor.Inputs(x)


NAMES = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]


@pytest.fixture(scope="module")
def seen() -> tuple[Any, tonsor.Inputs, Any, Any, tonsor.Plan]:
    """A network with its blocks, and a plan that cuts channels."""
    net, x = resnet()
    anatomy, blocks = found(net, x)
    return net, x, anatomy, blocks, tonsor.plan(anatomy, "macs=60%", by="l1")


def test_channels_and_blocks_go_in_any_order(seen: Any) -> None:
    net, x, anatomy, blocks, channels = seen
    names = ["layer1.1", "layer3.2"]
    plan = drop_plan(anatomy, blocks, names)
    both = plan.merge(channels)
    slim = both.apply(net)
    assert same(slim, channels.merge(plan).apply(net), x)
    assert same(slim, drop_plan(anatomy, blocks, names, after=channels).apply(net), x)
    assert not both.diff(channels.merge(plan))

    cut = channels.apply(net)  # channels first, then blocks
    after, left = found(cut, x)
    later = drop_plan(after, left, names)
    assert same(later.apply(cut), slim, x)
    assert same(later.rebase(channels).apply(net), slim, x)
    assert not later.rebase(channels).diff(both)

    short = plan.apply(net)  # blocks first, then channels
    fewer = both.relative_to(plan)
    assert same(fewer.apply(short, inputs=x), slim, x)
    assert same(fewer.rebase(plan).apply(net), slim, x)
    assert same(both.relative_to(channels).apply(cut, inputs=x), slim, x)


@given(st.lists(st.sampled_from(NAMES), unique=True), st.lists(st.sampled_from(NAMES), unique=True))
@settings(max_examples=10)
def test_plans_add_up(one: list[str], two: list[str]) -> None:
    net, x = resnet()
    anatomy, blocks = found(net, x)
    first, second = drop_plan(anatomy, blocks, one), drop_plan(anatomy, blocks, two)
    both, other = first.merge(second), second.merge(first)
    assert {d.name for d in both.drops} == {d.name for d in other.drops} == {*one, *two}
    slim = both.apply(net, verify=False)
    assert same(slim, other.apply(net, verify=False), x)
    assert same(slim, drop_plan(anatomy, blocks, [*one, *two]).apply(net, verify=False), x)
    apart = first.diff(second)
    assert bool(apart) == ({*one} != {*two})
    rest = both.relative_to(first)
    assert {d.name for d in rest.drops} == {*two} - {*one}
    assert same(rest.apply(first.apply(net, verify=False), verify=False), slim, x)
    assert {d.name for d in rest.rebase(first).drops} == {*one, *two}


def test_what_is_saved_is_loaded(seen: Any, tmp_path: Path) -> None:
    net, _, anatomy, blocks, channels = seen
    plan = drop_plan(anatomy, blocks, ["layer1.0", "layer2.2"], after=channels)
    slim = plan.apply(net)
    tonsor.save(tmp_path / "slim.safetensors", slim, plan)
    again = tonsor.load(tmp_path / "slim.safetensors", net)
    assert slim.state_dict().keys() == again.state_dict().keys()
    for name, value in slim.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    assert slim.load_state_dict(plan.cut_state(net.state_dict()), strict=True)
    prefixed = {f"module.{n}": v for n, v in net.state_dict().items()}
    assert plan.cut_state(prefixed).keys() == {f"module.{n}" for n in slim.state_dict()}
    with pytest.raises(PlanError):  # a plan of fewer blocks does not describe this model
        tonsor.save(tmp_path / "other.safetensors", slim, channels)


def test_a_slim_model_goes_back_to_its_original_size(seen: Any) -> None:
    net, x, anatomy, blocks, channels = seen
    plan = drop_plan(anatomy, blocks, ["layer1.0", "layer2.2"], after=channels)
    slim = plan.apply(net)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1)
    back = plan.revert(slim, net)
    assert [n for n, _ in back.named_modules()] == [n for n, _ in net.named_modules()]
    assert same(plan.apply(back), slim, x)
    for name, value in net.state_dict().items():
        if gone(plan.drops, name):
            assert torch.equal(back.state_dict()[name], value)
    told = said(PlanError, lambda: channels.revert(slim, net))
    assert "of the slim model is not what this plan leaves of it" in told


def test_momentum_moves_over_and_that_of_blocks_is_forgotten(seen: Any) -> None:
    _, x, anatomy, blocks, channels = seen
    net, _ = resnet()
    plan = drop_plan(anatomy, blocks, ["layer1.0", "layer2.2"], after=channels)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(*x.args).sum().backward()
    optimizer.step()
    before = {n: optimizer.state[p]["momentum_buffer"].clone() for n, p in net.named_parameters()}
    slim = plan.apply(net, verify=False)
    plan.apply_to(optimizer, net, slim)
    assert len(optimizer.param_groups[0]["params"]) == len(list(slim.parameters()))
    assert set(optimizer.state) == set(slim.parameters())
    wanted = plan.cut_state(before)
    for name, parameter in slim.named_parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], wanted[name])
    slim(*x.args).sum().backward()
    optimizer.step()


def test_going_twice_is_going_once(seen: Any) -> None:
    net, x, anatomy, blocks, _ = seen
    plan = drop_plan(anatomy, blocks, ["layer1.0", "layer1.0"])
    assert len(plan.drops) == 1
    assert plan.merge(plan).drops == plan.drops
    twice = replace(plan, drops=plan.drops * 2)
    assert same(twice.apply(net), plan.apply(net), x)
    assert plan.relative_to(plan).drops == ()


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.one(x).tanh()
        return x + self.two(x)


def test_a_branch_goes_with_the_layer_around_it() -> None:
    net = ready(nn.Sequential(nn.Linear(3, 6), nn.Sequential(Layer(), Layer()), nn.Linear(6, 2)))
    x = torch.randn(4, 3)
    anatomy, layers = found(net, x)
    _, branches = found(net, x, "branch")
    assert going(branches) == ["1.0.one", "1.0.two", "1.1.one", "1.1.two"]
    inner = "1.0.one"
    whole, part = drop_plan(anatomy, layers, ["1.0"]), drop_plan(anatomy, branches, [inner])
    assert [d.name for d in part.merge(whole).drops] == ["1.0"]
    assert [d.name for d in whole.merge(part).drops] == ["1.0"]
    assert later_drops(part.drops, whole.drops) == ()
    assert later_drops(whole.drops, part.drops) == whole.drops
    assert joined_drops(part.drops, whole.drops) == whole.drops
    slim = part.apply(net)
    rest, left = found(slim, x)
    assert "1.0" in going(left)
    total = drop_plan(rest, left, ["1.0"]).rebase(part)
    assert [d.name for d in total.drops] == ["1.0"]
    assert same(total.apply(net), whole.apply(net), tonsor.Inputs(x))


def test_the_plan_of_another_model_is_refused(seen: Any) -> None:
    _, _, anatomy, blocks, _ = seen
    plan = drop_plan(anatomy, blocks, ["layer1.0"])
    slim = plan.apply(anatomy.model)
    assert "the model has no such tensor" in said(PlanError, lambda: plan.apply(slim))
    assert "1 blocks go: layer1.0" in str(plan)
