"""The published ResNet-18 comes out of a real plan, line by line and number by number."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError
from tonsor.methods.swp.table import TABLE2, listing, resnet18_plan
from tonsor.surgery.stripe_conv import StripeConv

# As printed in the supplement, without the blanks.
TEXT = """
(conv1):Strip(3,324) (bn1):BatchNorm(64)
(layer1.0.conv1):Strip(64,102) (layer1.0.bn1):BatchNorm(57)
(layer1.0.conv2):Strip(57,164) (layer1.0.bn2):BatchNorm(64)
(layer1.1.conv1):Strip(64,175) (layer1.1.bn1):BatchNorm(62)
(layer1.1.conv2):Strip(62,300) (layer1.1.bn2):BatchNorm(64)
(layer2.0.conv1):Strip(64,475,stride=2) (layer2.0.bn1):BatchNorm(119)
(layer2.0.conv2):Strip(119,636) (layer2.0.bn2):BatchNorm(128)
(layer2.1.conv1):Strip(128,662) (layer2.1.bn1):BatchNorm(128)
(layer2.1.conv2):Strip(128,648) (layer2.1.bn2):BatchNorm(128)
(layer3.0.conv1):Strip(128,995,stride=2) (layer3.0.bn1):BatchNorm(252)
(layer3.0.conv2):Strip(252,1502) (layer3.0.bn2):BatchNorm(256)
(layer3.1.conv1):Strip(256,1148) (layer3.1.bn1):BatchNorm(256)
(layer3.1.conv2):Strip(256,944) (layer3.1.bn2):BatchNorm(256)
(layer4.0.conv1):Strip(256,1304,stride=2) (layer4.0.bn1):BatchNorm(498)
(layer4.0.conv2):Strip(498,2448) (layer4.0.bn2):BatchNorm(512)
(layer4.1.conv1):Strip(512,3111) (layer4.1.bn1):BatchNorm(512)
(layer4.1.conv2):Strip(512,2927) (layer4.1.bn2):BatchNorm(512)
(fc):Linear(512,1000)
"""
PUBLISHED = TEXT.split()
SHORTCUTS = [(64, 128, 28), (128, 256, 14), (256, 512, 7)]  # inputs, outputs, side: not printed


@cache
def looked_at(side: int = 64) -> Anatomy:
    torch.manual_seed(0)
    return tonsor.inspect(tonsor.zoo.build("resnet18"), torch.randn(1, 3, side, side))


def counted() -> tuple[int, int]:
    """Count parameters and multiply-accumulates at 224 from what is printed."""
    side = {"conv1": 112, "layer1": 56, "layer2": 28, "layer3": 14, "layer4": 7}
    parameters = macs = 512 * 1000
    parameters += 1000
    for line in PUBLISHED:
        name, kind, numbers = re.fullmatch(r"\((.+)\):(\w+)\((.*)\)", line).groups()  # pyright: ignore
        first, *rest = numbers.split(",")
        if kind == "BatchNorm":
            parameters += 2 * int(first)
        elif kind == "Strip":
            stripes = int(first) * int(rest[0])
            parameters += stripes
            macs += stripes * side[name.split(".")[0]] ** 2
    for inputs, outputs, out in SHORTCUTS:
        parameters += inputs * outputs + 2 * outputs
        macs += inputs * outputs * out**2
    return parameters, macs


def test_the_plan_is_proven_and_its_layers_are_those_that_are_printed() -> None:
    anatomy = looked_at()
    plan = resnet18_plan(anatomy)
    slim = plan.apply(anatomy.model)  # with the proof that it computes what the masked model does
    lines = [x.replace(" ", "") for x in listing(slim).splitlines() if "downsample" not in x]
    lines[0] = lines[0].replace(",stride=2", "")  # the one stride that the paper leaves out
    assert lines == PUBLISHED
    assert sum(p.numel() for p in slim.parameters()) == counted()[0]
    for layer in slim.modules():
        if isinstance(layer, StripeConv):
            assert layer.kept.flatten(1).any(1).all()


def test_costs_are_those_that_are_published() -> None:
    anatomy = looked_at(224)
    plan = resnet18_plan(anatomy)
    left = anatomy.cost_without(plan.drops, plan.stripes)
    parameters, macs = left.params(plan.amounts), left.total("mac_conv", plan.amounts)
    assert (parameters, macs) == counted()
    assert f"{parameters / anatomy.cost.params() - 1:.1%}" == "-42.7%"
    assert f"{macs / anatomy.cost.total('mac_conv') - 1:.1%}" == "-54.7%"


@pytest.mark.parametrize("seed", range(5))
def test_other_seeds_draw_other_stripes_of_the_same_numbers(seed: int) -> None:
    plan, other = resnet18_plan(looked_at(), seed=seed), resnet18_plan(looked_at(), seed=seed + 1)
    assert plan == resnet18_plan(looked_at(), seed=seed)
    for row in TABLE2:
        mask = plan.stripes[f"{row.layer}.weight"].mask
        assert mask.sum() == row.stripes
        assert np.count_nonzero(mask.any(axis=1)) == row.filters
        assert not np.array_equal(mask, other.stripes[f"{row.layer}.weight"].mask)


def test_models_of_other_sizes_are_refused() -> None:
    for model in (tonsor.zoo.build("resnet18", width=0.5), nn.Sequential(nn.Conv2d(3, 64, 7))):
        anatomy = tonsor.inspect(model, torch.randn(1, 3, 64, 64))
        with pytest.raises(PlanError, match=r"whose 'conv1' has 64 filters of 49 stripes"):
            resnet18_plan(anatomy)
