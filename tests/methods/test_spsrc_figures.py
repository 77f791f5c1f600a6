"""The numbers behind SPSRC's figures, against sets and sums written out."""

from __future__ import annotations

import functools
import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

import tonsor
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.errors import PlanError, SelectionError
from tonsor.methods.spsrc import (
    norm_figure,
    spsrc_plan,
    structure_data,
    threshold_plan,
)
from tonsor.plans import Plan


@functools.cache
def anatomy(model: str, **variant: Any) -> Anatomy:
    torch.manual_seed(0)
    return tonsor.inspect(zoo.build(model, **variant), torch.zeros(1, 3, 32, 32))


# ---------------------------------------------------------------- norms


def test_the_norms_of_a_layer_are_those_of_its_own_filters() -> None:
    whole = anatomy("resnet20")
    found = norm_figure(whole, "l1", layers=[4, "layer3.2.conv1"])
    assert [(n.number, n.layer) for n in found] == [(4, "layer1.1.conv1"), (18, "layer3.2.conv1")]
    for norms in found:
        own = whole.parameters[f"{norms.layer}.weight"].detach().abs().flatten(1).sum(1)
        assert norms.scores == pytest.approx(own.tolist(), rel=1e-5)
        apart = [v - math.fsum(norms.scores) / len(norms.scores) for v in norms.scores]
        second, third = (math.fsum(v**k for v in apart) / len(apart) for k in (2, 3))
        assert norms.skewness == pytest.approx(third / second**1.5)
        assert norms.sensitive == (norms.skewness > 0)
    high = max(n.skewness for n in found)
    assert not any(n.sensitive for n in norm_figure(whole, "l1", layers=[4, 18], threshold=high))


def test_without_a_choice_all_layers_with_channels_of_their_own_are_shown() -> None:
    assert [n.number for n in norm_figure(anatomy("resnet20"), "l1")] == list(range(2, 20, 2))
    assert [n.number for n in norm_figure(anatomy("vgg16"), "l1")] == list(range(1, 14))


def test_layers_without_norms_of_their_own_are_refused() -> None:
    with pytest.raises(SelectionError, match=r"3, 'layer1.0.conv2', .* those of \d+ convolutions"):
        norm_figure(anatomy("resnet20"), "l1", layers=[3])
    with pytest.raises(SelectionError, match=r"name 20; there are 1 \('conv1'\) to 19"):
        norm_figure(anatomy("resnet20"), "l1", layers=[20])


# ---------------------------------------------------------------- structures


def test_at_fixed_ratios_counts_are_the_same_and_the_overlap_is_not() -> None:
    whole = anatomy("resnet56")
    plans = {by: spsrc_plan(whole, "resnet56-2", by=by) for by in ("l1", "l2", "random")}
    found = structure_data(plans)
    assert found.kept["l1"] == found.kept["l2"] == found.kept["random"]
    assert list(found.before) == [n for n in plans["l1"].sizes if n in plans["l1"].keep]
    assert set(found.overlap) == set(found.chance) == {"l2", "random"}
    for other, shares in found.overlap.items():
        for name, share in shares.items():
            mine, theirs = set(plans["l1"].keep[name]), set(plans[other].keep[name])
            assert share == len(mine & theirs) / len(mine)
            assert found.chance[other][name] == len(mine) / found.before[name]
    near, far = (np.mean(list(found.overlap[other].values())) for other in ("l2", "random"))
    assert far < near < 1  # two norms agree more than a norm and a coin


def test_under_one_threshold_counts_differ_and_shared_channels_stay() -> None:
    whole = anatomy("resnet20", shortcut="B")
    everything = score(whole, "random")  # the residual streams too
    assert any("conv2" in name for name in everything.values)
    plans = {
        "l1": threshold_plan(whole, "macs=60%", "l1"),
        "random": threshold_plan(whole, "macs=60%", everything),
    }
    for plan in plans.values():
        assert whole.cost.macs(plan.counts) <= 0.6 * whole.cost.macs()
        assert all(name.endswith(".conv1.weight[0]") for name in plan.keep)
    found = structure_data(plans)
    assert found.kept["l1"] != found.kept["random"]
    for name, size in found.before.items():
        mine, theirs = (set(p.keep.get(name, range(size))) for p in plans.values())
        assert [found.kept[by][name] for by in plans] == [len(mine), len(theirs)]
        larger = max(len(mine), len(theirs))
        assert found.overlap["random"][name] == len(mine & theirs) / larger


def _plan(size: int, **keep: tuple[int, ...]) -> Plan:
    net = torch.nn.Sequential(torch.nn.Linear(2, size), torch.nn.Linear(size, 2))
    whole = tonsor.inspect(net, torch.zeros(1, 2))
    made = tonsor.plan(whole, ratios={"0": 1.0})
    return Plan(made.fingerprint, {f"{n}.weight[0]": k for n, k in keep.items()}, made.layout)


def test_chance_is_the_mean_over_all_choices() -> None:
    mine = (0, 1, 2)
    choices = list(combinations(range(5), 2))
    shares = []
    for theirs in choices:
        found = structure_data({"a": _plan(5, **{"0": mine}), "b": _plan(5, **{"0": theirs})})
        shares.append(found.overlap["b"]["0.weight[0]"])
        assert found.chance["b"]["0.weight[0]"] == 2 / 5
    assert np.mean(shares) == pytest.approx(2 / 5)


def test_plans_that_do_not_compare_are_refused() -> None:
    with pytest.raises(PlanError, match="two plans or more, got 1"):
        structure_data({"a": _plan(5)})
    with pytest.raises(PlanError, match="'a' and 'b' are plans for different models"):
        structure_data({"a": _plan(5), "b": _plan(6)})
