"""The foretold cost of a model with stripes is what a count by hand finds in the slim one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tonsor
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
from tonsor.surgery.stripe_conv import StripeConv

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def by_hand(model: nn.Module, x: Tensor) -> int:
    """Count multiply-accumulates of one sample as they happen, layer by layer."""
    total = 0

    def hook(layer: Any, given: Any, out: Tensor) -> None:
        nonlocal total
        if isinstance(layer, StripeConv):
            stripes, inputs = layer.weight.shape
            total += stripes * inputs * out[0, 0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features
        elif isinstance(layer, CONVS):
            inputs = layer.in_channels // layer.groups
            total += out[0].numel() * inputs * int(np.prod(layer.kernel_size))

    kinds = (StripeConv, nn.Linear, *CONVS)
    hooks = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, kinds)]
    with torch.no_grad():
        model(x)
    for found in hooks:
        found.remove()
    return total


def checked(it: Seen, plan: Plan) -> None:
    slim = plan.apply(it.model, verify=False)
    foretold = it.anatomy.cost_without(plan.drops, plan.stripes)
    assert foretold.params(plan.amounts) == count(slim)
    assert foretold.macs(plan.amounts) == by_hand(slim, it.x)
    whole = it.anatomy.cost_without((), plan.stripes)  # with all stripes there it is the original
    assert (whole.params(), whole.macs()) == (count(it.model), by_hand(it.model, it.x))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("make", [followed, stripes_only])
def test_a_count_by_hand_finds_the_same(name: str, make: Any) -> None:
    it = seen(name)
    assert it.anatomy.cost.macs() == by_hand(it.model, it.x)
    for seed, share in ((0, 0.2), (1, 0.6)):
        checked(it, make(it, drawn(it.layers, seed, share)))


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


@pytest.mark.parametrize("name", ["residual", "grouped", "twice", "three dimensions"])
@pytest.mark.parametrize("convention", [n for n, c in CONVENTIONS.items() if c.finish is None])
def test_every_convention_scales_its_convolutions(name: str, convention: str) -> None:
    """What a convention says of a convolution falls with the stripes; all else is as it was."""
    it = seen(name)
    plan = stripes_only(it, drawn(it.layers, 0, 0.4))
    before = it.anatomy.cost
    after = it.anatomy.cost_without((), plan.stripes)
    was, now = (c.by_module(a, convention) for c, a in ((before, {}), (after, plan.amounts)))
    for module, cost in was.items():
        if f"{module}.weight" in plan.stripes:
            stripes = plan.stripes[f"{module}.weight"]
            conv = it.model.get_submodule(module)
            bias = _biases(it, module) if conv.bias is not None else 0
            weight = bias if convention == "counter_rethinking" and _is_2d(conv) else 0
            assert now[module] * stripes.size == (
                (cost - weight) * stripes.left + weight * stripes.size
            )
        elif not any(n.startswith(f"{module}.") or not module for n in plan.stripes):
            assert now[module] == cost
    assert after.total(convention, plan.amounts) == now[""]
    assert after.total(convention, {fibre_leaf(s.kind, n): s.size for n, s in plan.stripes.items()}) == (
        before.total(convention)
    )


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
