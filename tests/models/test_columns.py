"""Every model with convolutions, without some of its columns: only those are missed."""

from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tests.families.blocks.check import count
from tests.families.column_nets import deadened
from tests.families.stripe_nets import Seen, drawn, followed
from tests.laws.checks import apart, outputs, tensors
from tonsor.errors import BudgetError, TraceError
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import FibreLayers
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.select.fibres.make import plan_columns
from tonsor.surgery.column_conv import ColumnConv

from . import ALL
from .case import Case

CONVS = (nn.modules.conv._ConvNd,)
QUICK = (
    "densenet", "inception", "shufflenet_v2", "mobilenet_v3", "unet", "video_conv3d",
    "audio_conv1d", "spectral_norm_new", "in_place", "channels_last",
)  # fmt: skip
HERE = [case for case in ALL if case.name in QUICK]


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_some_columns_of_it_go(case: Case) -> None:
    _check(case, ["40%"])


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_any_columns_of_it_go(case: Case) -> None:
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
        pytest.skip("the model can't be followed, with or without columns")
    layers = find_columns(anatomy)
    if not layers.free:
        pytest.skip("none of its convolutions may lose columns")
    for budget in budgets:
        _goes(anatomy, layers, budget)
    if not kwargs and len(args) == 1 and isinstance(args[0], torch.Tensor):
        _misses_only_columns(anatomy, layers, args[0])


def _goes(anatomy: tonsor.Anatomy, layers: FibreLayers, budget: str) -> None:
    model = anatomy.model
    before = {n: t.clone() for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    try:
        plan = plan_columns(anatomy, f"pieces={budget}")
    except BudgetError as error:  # there are few columns, and one of each layer stays
        plan = plan_columns(anatomy, f"pieces={int(error.minimum or 0)}")
    plan = plan_from_json(plan_to_json(plan))
    slim = plan.apply(model, verify=False)
    assert plan.prove(model, slim, inputs=anatomy.inputs).error < 1e-6
    held = {
        f"{n}.weight": len(m.weight) for n, m in slim.named_modules() if isinstance(m, ColumnConv)
    }
    assert held == {n: s.left for n, s in plan.cut().fibres.items()}
    foretold = anatomy.cost_without(plan.drops, plan.fibres)
    assert foretold.params(plan.amounts) == count(slim)
    assert foretold.macs(plan.amounts) <= anatomy.cost.macs()
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name].nan_to_num(), value.nan_to_num()), name
    assert {x.weight for x in layers.free} >= plan.columns.keys()


def _misses_only_columns(anatomy: tonsor.Anatomy, layers: FibreLayers, x: Any) -> None:
    """Whatever follows, the slim model is the original with zeros in the columns that went."""
    if not x.is_floating_point() or any(t.dtype != torch.float32 for t in tensors(x)):
        return
    try:
        outputs(anatomy.model, x)
    except RuntimeError:
        return  # the model itself can't be copied, or does not run in float64
    it = Seen(anatomy.model, x, anatomy, layers)
    masks = drawn(layers, 0, 0.5)
    slim = followed(it, masks).apply(anatomy.model, verify=False)
    assert apart(outputs(deadened(it, masks), x), outputs(slim, x)) < 1e-9
