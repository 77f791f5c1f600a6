"""The foretold cost of a model with fibres is what a count by hand finds in the slim one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tonsor
from tests.cost.by_hand import by_hand
from tests.families import column_nets
from tests.families.blocks.check import count
from tests.families.stripe_nets import (
    NETS,
    Seen,
    drawn,
    emptied,
    followed,
    looked_at,
    seen,
    stripes_only,
)
from tonsor.cost.conventions import CONVENTIONS
from tonsor.fibres import Fibres, fibre_leaf
from tonsor.plans import Plan


def checked(it: Seen, plan: Plan) -> None:
    slim = plan.apply(it.model, verify=False)
    foretold = it.anatomy.cost_without(plan.drops, plan.fibres)
    assert foretold.params(plan.amounts) == count(slim)
    assert foretold.macs(plan.amounts) == by_hand(slim, it.x)
    whole = it.anatomy.cost_without((), plan.fibres)  # with all fibres there it is the original
    assert (whole.params(), whole.macs()) == (count(it.model), by_hand(it.model, it.x))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("make", [followed, stripes_only])
def test_a_count_by_hand_finds_the_same(name: str, make: Any) -> None:
    it = seen(name)
    assert it.anatomy.cost.macs() == by_hand(it.model, it.x)
    for seed, share in ((0, 0.2), (1, 0.6)):
        checked(it, make(it, drawn(it.layers, seed, share)))


@pytest.mark.parametrize("name", column_nets.NETS)
@pytest.mark.parametrize("make", [followed, column_nets.columns_only])
def test_a_count_by_hand_finds_the_same_of_columns(name: str, make: Any) -> None:
    it = column_nets.seen(name)
    for seed, share in ((0, 0.2), (1, 0.6)):
        checked(it, make(it, drawn(it.layers, seed, share)))


@pytest.mark.parametrize("name", ["plain", "depthwise", "gated", "beside", "vgg16"])
@pytest.mark.parametrize("convention", [n for n, c in CONVENTIONS.items() if c.finish is None])
def test_channels_that_follow_are_counted_as_in_the_slim_model(name: str, convention: str) -> None:
    """Where only whole inputs die, and their channels go, what is left is a model like others."""
    it = column_nets.seen(name)
    masks = column_nets.whole(it)
    for layer in it.layers.free:
        masks[layer.name][layer.rows // 2] = layer.inputs <= 3  # not of the picture
    plan = followed(it, masks)
    assert plan.keep
    slim = plan.apply(it.model, verify=False)
    foretold = it.anatomy.cost_without((), plan.fibres).total(convention, plan.amounts)
    assert not plan.cut().fibres
    assert foretold == tonsor.inspect(slim, it.x).cost.total(convention)
    assert foretold < it.anatomy.cost.total(convention)


@pytest.mark.parametrize("name", ["residual", "resnet20"])
def test_with_blocks_that_go(name: str) -> None:
    it = seen(name)
    first = it.layers.free[1].name
    plan = emptied(it, first)
    assert plan.drops
    checked(it, plan)
    masks = drawn(it.layers, 0, 0.5)
    masks[first][:] = False
    both = followed(it, masks)
    assert both.drops
    assert both.stripes
    checked(it, both)


@pytest.mark.parametrize("name", ["residual", "grouped", "flat"])
def test_with_channels_that_went_before(name: str) -> None:
    it = seen(name)
    channels = tonsor.plan(it.anatomy, "pieces=70%", by="random")
    plan = followed(it, drawn(it.layers, 2, 0.5), channels)
    assert not channels.diff(plan).only_first
    checked(it, plan)


@pytest.mark.parametrize("kind", ["stripes", "columns"])
@pytest.mark.parametrize("name", ["residual", "grouped", "twice", "three dimensions"])
@pytest.mark.parametrize("convention", [n for n, c in CONVENTIONS.items() if c.finish is None])
def test_every_convention_scales_its_convolutions(name: str, convention: str, kind: str) -> None:
    """What a convention says of a convolution falls with its fibres; all else is as it was."""
    it = (seen if kind == "stripes" else column_nets.seen)(name)
    make = stripes_only if kind == "stripes" else column_nets.columns_only
    plan = make(it, drawn(it.layers, 0, 0.4))
    before = it.anatomy.cost
    after = it.anatomy.cost_without((), plan.fibres)
    was, now = (c.by_module(a, convention) for c, a in ((before, {}), (after, plan.amounts)))
    for module, cost in was.items():
        if f"{module}.weight" in plan.fibres:
            fibres = plan.fibres[f"{module}.weight"]
            conv = it.model.get_submodule(module)
            bias = _biases(it, module) if conv.bias is not None else 0
            weight = bias if convention == "counter_rethinking" and _is_2d(conv) else 0
            assert now[module] * fibres.size == (
                (cost - weight) * fibres.left + weight * fibres.size
            )
        elif not any(n.startswith(f"{module}.") or not module for n in plan.fibres):
            assert now[module] == cost
    assert after.total(convention, plan.amounts) == now[""]
    every = {fibre_leaf(f.kind, n): f.size for n, f in plan.fibres.items()}
    assert after.total(convention, every) == before.total(convention)


def _is_2d(conv: nn.Module) -> bool:
    return isinstance(conv, nn.Conv2d)


def _biases(it: Seen, module: str) -> int:
    """Count the numbers to which a layer adds a bias, as often as it runs."""
    convs = [c for c in it.anatomy.convs if c.name == module]
    return sum(c.out_axis.size * int(np.prod(c.output_size)) for c in convs)


@pytest.mark.parametrize("convention", ["spp_speedup", "spp_speedup_fc"])
def test_a_speed_up_is_over_the_whole_model(convention: str) -> None:
    it = seen("residual")
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim: Any = plan.apply(it.model, verify=False)
    after = it.anatomy.cost_without(plan.drops, plan.stripes)
    linear = 0 if convention == "spp_speedup_fc" else it.model.fc.weight.numel()
    left = by_hand(slim, it.x) - (0 if not linear else slim.fc.weight.numel())
    wanted = (by_hand(it.model, it.x) - linear) / left
    assert after.total(convention, plan.amounts, before=it.anatomy.cost) == pytest.approx(wanted)


def test_nothing_cut_is_the_account_itself() -> None:
    it = seen("plain")
    assert it.anatomy.cost_without(()) is it.anatomy.cost
    assert it.anatomy.cost_without((), {}) is it.anatomy.cost
    nobody = {"nobody.weight": Fibres("stripes", (3,), (1,))}
    assert it.anatomy.cost_without((), nobody) is it.anatomy.cost


def test_a_sample_alone_is_counted_too() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 4, 3))
    it = looked_at(net, torch.randn(3, 12, 12))
    plan = stripes_only(it, drawn(it.layers, 0, 0.4))
    foretold = it.anatomy.cost_without((), plan.stripes)
    left = {n: s.left for n, s in plan.stripes.items()}
    assert foretold.macs(plan.amounts) == 25 * 3 * left["0.weight"] + 9 * 5 * left["2.weight"]


def test_a_report_tells_what_is_left() -> None:
    it = seen("residual")
    slim, report = tonsor.prune_stripes(it.model, it.x, budget="macs=40%")
    assert report.params == (count(it.model), count(slim))
    assert report.macs == (by_hand(it.model, it.x), by_hand(slim, it.x))
    assert "stripes stay in" in str(report)
