"""Every model with convolutions, without some of its stripes: proven, and as cheap as foretold."""

from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tests.families.blocks.check import count
from tonsor.errors import BudgetError, TraceError
from tonsor.families.stripes.layers import find_stripes
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.select.fibres.make import plan_stripes
from tonsor.surgery.stripe_conv import StripeConv

from . import ALL
from .case import Case

CONVS = (nn.modules.conv._ConvNd,)
QUICK = (
    "densenet", "inception", "resnext", "shufflenet_v2", "mobilenet_v3", "unet",
    "grouped_transposed", "video_conv3d", "audio_conv1d", "spectral_norm_new", "in_place",
    "channels_last", "swin",
)  # fmt: skip
HERE = [case for case in ALL if case.name in QUICK]


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_some_stripes_of_it_go(case: Case) -> None:
    _check(case, ["40%"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_any_stripes_of_it_go(case: Case) -> None:
    _check(case, ["70%", "15%"])


def _check(case: Case, budgets: list[str]) -> None:
    if case.name.startswith("hf_"):
        pytest.importorskip("transformers")
    model, args, kwargs = case.build()
    if not any(isinstance(m, CONVS) for m in model.modules()):
        pytest.skip("it has no convolution")
    try:
        anatomy = tonsor.inspect(model, tonsor.Inputs(*args, **kwargs))
    except TraceError:
        pytest.skip("the model can't be followed, with or without stripes")
    layers = find_stripes(anatomy)
    for layer in layers:
        assert layer.reason or layer.positions > 1
    if not layers.free:
        pytest.skip("none of its convolutions may lose stripes")
    for budget in budgets:
        _goes(anatomy, layers, budget)


def _goes(anatomy: tonsor.Anatomy, layers: Any, budget: str) -> None:
    model = anatomy.model
    before = {n: t.clone() for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    try:
        plan = plan_stripes(anatomy, f"pieces={budget}")
    except BudgetError as error:  # there are few stripes, and one of each layer stays
        plan = plan_stripes(anatomy, f"pieces={int(error.minimum or 0)}")
    plan = plan_from_json(plan_to_json(plan))
    slim = plan.apply(model, verify=False)
    assert plan.prove(model, slim, inputs=anatomy.inputs).error < 1e-6
    left = {n: s.left for n, s in plan.cut().fibres.items()}
    held = {
        f"{n}.weight": len(m.weight) for n, m in slim.named_modules() if isinstance(m, StripeConv)
    }
    assert held == left
    foretold = anatomy.cost_without(plan.drops, plan.stripes)
    assert foretold.params(plan.amounts) == count(slim)
    assert foretold.macs(plan.amounts) <= anatomy.cost.macs()
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name].nan_to_num(), value.nan_to_num()), name
    assert {x.weight for x in layers.free} >= plan.stripes.keys()
