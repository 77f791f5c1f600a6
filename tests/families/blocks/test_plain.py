"""Layers without a shortcut: identity stands for them, and what follows reads fewer channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.refusals import said
from tonsor import zoo
from tonsor.errors import PlanError, SelectionError, TonsorError
from tonsor.select.drop import drop_plan

from .check import count, found, going, ready, same, without

POOLS = (1, 3, 6, 9, 12)  # in VGG-16, by the number of convolutions before


def vgg(name: str = "vgg16", **more: Any) -> tuple[Any, tonsor.Inputs]:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return ready(zoo.build(name, width=0.125, **more)), tonsor.Inputs(x)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_every_layer_but_the_first_and_last_may_go(name: str) -> None:
    net, x = vgg(name)
    _, blocks = found(net, x)
    convs = [f"features.{i}" for i, m in enumerate(net.features) if isinstance(m, nn.Conv2d)]
    assert [b.name for b in blocks] == [*convs, "classifier"]
    assert going(blocks) == convs[1:]
    assert blocks.named("features.0").reason == "it reads the input of the model"
    assert blocks.named("classifier").reason == "it makes the output of the model"
    assert blocks[1].modules == ("features.3", "features.4", "features.5")


def by_hand(net: Any, gone: Sequence[str]) -> nn.Module:
    """The oracle: the layers that stay, in a sequence of its own, with sliced weights."""
    layers: list[nn.Module] = []
    have, skip = 3, 0
    for i, layer in enumerate(net.features):
        if skip:
            skip -= 1
        elif isinstance(layer, nn.Conv2d) and f"features.{i}" in gone:
            skip = 2
        elif isinstance(layer, nn.Conv2d):
            other = nn.Conv2d(have, layer.out_channels, 3, padding=1, bias=False)
            other.weight = nn.Parameter(layer.weight[:, :have].detach().clone())
            layers.append(other)
            have = layer.out_channels
        else:
            layers.append(layer)
    last = nn.Linear(have, net.classifier.out_features)
    last.weight = nn.Parameter(net.classifier.weight[:, :have].detach().clone())
    last.bias = net.classifier.bias
    return nn.Sequential(*layers, nn.Flatten(), last).eval()


@pytest.mark.parametrize(
    "gone",
    [
        ["features.17"],  # 32 channels to 32
        ["features.7"],  # 8 to 16, and so the next reads 8
        ["features.24"],
        ["features.34", "features.37", "features.40"],
        ["features.7", "features.10", "features.14"],
        ["features.14", "features.17", "features.20", "features.24"],
    ],
)
def test_what_is_left_is_the_network_written_without_it(gone: list[str]) -> None:
    net, x = vgg()
    anatomy, blocks = found(net, x)
    plan, slim = without(anatomy, blocks, gone)
    oracle = by_hand(net, gone)
    assert count(slim) == count(oracle)
    assert same(slim, oracle, x)
    assert same(slim, plan.mask(net), x)


def test_all_layers_but_two() -> None:
    net, x = vgg()
    anatomy, blocks = found(net, x)
    _, slim = without(anatomy, blocks, going(blocks))
    assert same(slim, by_hand(net, going(blocks)), x)


def narrowing() -> nn.Module:
    """Channels 8, 12, 5, 9: the third layer makes fewer than it reads."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU(),
        nn.Conv2d(12, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Conv2d(5, 9, 1), nn.Flatten(),
        nn.Linear(9 * 16, 4),
    )  # fmt: skip


def test_a_layer_that_makes_fewer_channels_hands_on_the_first() -> None:
    net: Any = ready(narrowing())
    x = tonsor.Inputs(torch.randn(2, 3, 4, 4))
    anatomy, blocks = found(net, x)
    assert blocks.named("4").drop.fit == "narrow"  # type: ignore[union-attr]

    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :5]

    oracle = nn.Sequential(*net[:4], Narrow(), *net[6:])
    assert same(without(anatomy, blocks, ["4"])[1], oracle, x)


def test_channels_of_depth_wise_layers_are_one_on_both_sides() -> None:
    net = ready(nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.Flatten(), nn.Linear(6 * 16, 4),
    ))  # fmt: skip
    anatomy, blocks = found(net, torch.randn(2, 3, 4, 4))
    plan, _ = without(anatomy, blocks, ["2"])
    cut = tonsor.plan(anatomy, "macs=60%", by="l1")
    assert cut.keep
    for both in (plan.merge(cut), cut.merge(plan), drop_plan(anatomy, blocks, ["2"], after=cut)):
        both.apply(net)


def test_layers_between_channels_that_are_cut_otherwise_stay() -> None:
    net, x = vgg()
    anatomy, blocks = found(net, x)
    alone = drop_plan(anatomy, blocks, ["features.20"])
    cut = replace(alone, drops=(), keep={"features.20.weight[0]": tuple(range(1, 32))})
    told = said(PlanError, lambda: alone.merge(cut))
    assert "block 'features.20' can't go where the channels that it makes are cut other" in told
    told = said(SelectionError, lambda: drop_plan(anatomy, blocks, ["features.20"], after=cut))
    assert "features.20" in told


def test_channels_are_cut_after_layers_went() -> None:
    net, x = vgg()
    anatomy, blocks = found(net, x)
    plan, slim = without(anatomy, blocks, ["features.7", "features.20"])
    cut = tonsor.plan(tonsor.inspect(slim, x), "macs=50%", by="l1")
    total = cut.rebase(plan)
    assert same(total.apply(net), cut.apply(slim), x)


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (
            (nn.Conv2d(6, 6, 3, padding=1, stride=2),),
            "it turns 6 x 4 x 4 into 6 x 2 x 2, so nothing that goes in can stand for what "
            "comes out",
        ),
        (
            (nn.Conv2d(6, 12, 1, groups=2), nn.GroupNorm(3, 12)),
            "its channels belong together in ways that no slice of the next layer respects",
        ),
    ],
)
def test_a_layer_stays_with_its_reason(layers: Sequence[nn.Module], reason: str) -> None:
    lazy = nn.Sequential(nn.Conv2d(3, 6, 1), *layers, nn.LazyConv2d(7, 1), nn.Flatten())
    lazy(torch.randn(2, 3, 4, 4))
    net = ready(lazy)
    _, blocks = found(net, torch.randn(2, 3, 4, 4))
    assert blocks.named("1").reason == reason


class SharedChannels(nn.Module):
    """Two layers whose channels are added: slicing those of one would take the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
        self.other, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((self.wide(self.first(x).relu()) + self.other(x)).tanh()).mean((2, 3))


def test_channels_that_others_make_too_are_not_sliced() -> None:
    _, blocks = found(ready(SharedChannels()), torch.randn(2, 3, 4, 4))
    assert blocks.named("wide").reason == (
        "it makes more channels than it reads, and those may not go, for 'other.weight' has to do "
        "with them too"
    )


WIDTHS = st.lists(st.integers(2, 6), min_size=2, max_size=5)


@given(WIDTHS, st.booleans(), st.booleans(), st.data())
@settings(max_examples=20)
def test_any_layers_of_any_plain_net(
    widths: list[int], convolution: bool, norm: bool, data: st.DataObject
) -> None:
    """Whatever goes, the rest is the network written by hand, or the reason is told."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(zip([3, *widths], [*widths, 4], strict=True)):
        layers.append(nn.Conv2d(a, b, 3, padding=1) if convolution else nn.Linear(a, b))
        if i < len(widths):
            kind = (nn.BatchNorm2d if convolution else nn.BatchNorm1d) if norm else nn.PReLU
            layers += [kind(b), nn.ReLU()]
    net = ready(nn.Sequential(*layers))
    x = tonsor.Inputs(torch.randn(3, 3, 4, 4) if convolution else torch.randn(3, 3))
    anatomy, blocks = found(net, x)
    names = going(blocks)
    assert names == [str(3 * i) for i in range(1, len(widths))]
    gone = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    refused = ""
    try:
        plan, slim = without(anatomy, blocks, gone)
    except TonsorError as error:
        refused, plan, slim = str(error), None, None
    if plan is None or slim is None:
        assert len(gone) > 1  # one alone always may
        assert "can't go" in refused
        return
    assert same(slim, plan.mask(net), x)
    assert same(slim, _fitted(net, gone), x)


def _fitted(net: Any, gone: Sequence[str]) -> nn.Module:
    """Each layer that goes pads with zeros, or hands on the first of its channels."""

    class Fit(nn.Module):
        def __init__(self, wanted: int) -> None:
            super().__init__()
            self.wanted = wanted

        def forward(self, x: Tensor) -> Tensor:
            wide = torch.cat([x, x.new_zeros(x.shape[0], self.wanted, *x.shape[2:])], 1)
            return wide[:, : self.wanted]

    layers: list[nn.Module] = []
    for i, layer in enumerate(net):
        start = str(i // 3 * 3)
        if start not in gone:
            layers.append(layer)
        elif str(i) == start:
            layers.append(Fit(len(layer.weight)))  # type: ignore[arg-type]
    return nn.Sequential(*layers)
