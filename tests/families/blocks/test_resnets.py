"""The residual networks of the paper: which blocks may go, what is left, and what it costs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.surgery.shortcut import Shortcut

from .check import count, found, going, ready, same, without, zeroed

SMALL = {
    "resnet20": 0.25,
    "resnet56": 0.25,
    "resnet18": 0.125,
    "resnet34": 0.125,
    "resnet50": 0.125,
}
STAGES = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3], "resnet50": [3, 4, 6, 3]}


def small(name: str, **more: Any) -> tuple[Any, tonsor.Inputs]:
    side = 8 if name in ("resnet20", "resnet56") else 32
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, side, side, generator=generator)
    return ready(zoo.build(name, width=SMALL[name], **more)), tonsor.Inputs(x)


def last_norm(net: nn.Module, name: str) -> str:
    """The batch norm that a block's branch ends with."""
    return f"{name}.bn3" if hasattr(net.get_submodule(name), "bn3") else f"{name}.bn2"


@pytest.mark.parametrize("shortcut", ["A", "A-mean", "B"])
@pytest.mark.parametrize(("depth", "each"), [(20, 3), (56, 9)])
def test_a_cifar_resnet_keeps_the_first_block_of_its_last_two_stages(
    depth: int, each: int, shortcut: str
) -> None:
    net, x = small(f"resnet{depth}", shortcut=shortcut)
    _, blocks = found(net, x)
    assert [b.name for b in blocks] == [f"layer{s}.{i}" for s in (1, 2, 3) for i in range(each)]
    stay = [b for b in blocks if not b.removable]
    assert [b.name for b in stay] == ["layer2.0", "layer3.0"]
    assert stay[0].reason == (
        "it turns 4 x 8 x 8 into 8 x 4 x 4, so nothing that goes in can stand for what comes out"
    )


@pytest.mark.parametrize("name", STAGES)
def test_an_imagenet_resnet_keeps_every_block_with_a_projection(name: str) -> None:
    net, x = small(name)
    _, blocks = found(net, x)
    every = [f"layer{s}.{i}" for s, n in enumerate(STAGES[name], start=1) for i in range(n)]
    assert [b.name for b in blocks] == every
    projected = [n for n in every if net.get_submodule(n).downsample is not None]
    assert [b.name for b in blocks if not b.removable] == projected
    assert ("layer1.0" in projected) == (name == "resnet50")


@pytest.mark.parametrize("name", SMALL)
def test_removing_blocks_is_zeroing_the_last_norm_of_each(name: str) -> None:
    net, x = small(name)
    anatomy, blocks = found(net, x)
    names = going(blocks)
    for gone in (names[:1], names[::2], names):
        _, slim = without(anatomy, blocks, gone)
        assert same(slim, zeroed(net, [last_norm(net, n) for n in gone]), x)


def test_every_single_block_of_resnet_20() -> None:
    net, x = small("resnet20")
    anatomy, blocks = found(net, x)
    for name in going(blocks):
        _, slim = without(anatomy, blocks, [name])
        assert same(slim, zeroed(net, [f"{name}.bn2"]), x), name


def test_no_shortcut_of_a_resnet_has_an_activation() -> None:
    """What goes into a block has passed a ReLU, and a second one does nothing."""
    for name in ("resnet56", "resnet50"):
        _, blocks = found(*small(name))
        assert all(b.drop.through == () for b in blocks.removable if b.drop is not None)


def test_k_blocks_of_resnet_56_cost_k_times_4718592() -> None:
    net = zoo.build("resnet56").eval()
    anatomy, blocks = found(net, torch.randn(1, 3, 32, 32))
    whole = anatomy.cost.macs()
    names = going(blocks)
    for k in (1, 5, 25):
        drops = [b.drop for b in blocks.removable[:k] if b.drop is not None]
        assert whole - anatomy.cost_without(drops).macs() == k * 4_718_592
    _, slim = without(anatomy, blocks, names[3:7])
    assert whole - tonsor.inspect(slim, torch.randn(1, 3, 32, 32)).cost.macs() == 4 * 4_718_592
    lost = sum(count(net.get_submodule(n)) for n in names[3:7])
    assert count(net) - count(slim) == lost


def test_what_is_left_is_the_users_own_model() -> None:
    net, x = small("resnet20")
    anatomy, blocks = found(net, x)
    net.layer1.train()
    net.layer1[1].eval()
    plan, _ = without(anatomy, blocks, ["layer1.0", "layer1.1"])
    slim: Any = plan.apply(net, verify=False)
    assert type(slim) is type(net)
    assert isinstance(slim.layer1[0], Shortcut)
    assert str(slim.layer1[0]) == "Shortcut(of Block)"
    assert [m.training for m in slim.layer1] == [True, False, True]
    slim.eval()
    for other in (copy.deepcopy(slim), pickle.loads(pickle.dumps(slim))):
        assert same(other, slim, x)
        assert other.load_state_dict(slim.state_dict(), strict=True)
    state = plan.cut_state(net.state_dict())
    assert not any(n.startswith(("layer1.0", "layer1.1")) for n in state)
    assert slim.load_state_dict(state, strict=True)


def test_the_rest_is_found_again() -> None:
    net, x = small("resnet20")
    anatomy, blocks = found(net, x)
    plan, slim = without(anatomy, blocks, ["layer1.1", "layer3.2"])
    after, left = found(slim, x)
    assert going(left) == [n for n in going(blocks) if n not in ("layer1.1", "layer3.2")]
    more, smaller = without(after, left, ["layer1.0", "layer3.1"])
    both = more.rebase(plan)
    assert {d.name for d in both.drops} == {"layer1.1", "layer3.2", "layer1.0", "layer3.1"}
    assert same(both.apply(net), smaller, x)
