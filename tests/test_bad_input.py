"""Models and inputs that users get wrong: each is said clearly, and costs them nothing."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.api import Anatomy, inspect, plan
from tonsor.errors import (
    PlanError,
    ScoreError,
    SurgeryError,
    TonsorError,
    TraceError,
    UnsupportedModelError,
)

from .models.snapshot import Snapshot
from .refusals import Net, said


@pytest.fixture
def net() -> Iterator[Net]:
    """A model that must be exactly the same after the test, whatever was tried on it."""
    model = Net()
    before = Snapshot(model, tonsor.Inputs())
    yield model
    changes = before.changes(model, tonsor.Inputs())
    assert [c for c in changes if "random state" not in c] == []  # inputs are drawn from it


@pytest.fixture
def anatomy(net: Net) -> Anatomy:
    return inspect(net, torch.randn(2, 8))


# ---------------------------------------------------------------- models and inputs


class Failing(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.first(x)
        message = "the user's own complaint"
        raise KeyError(message)


def test_a_forward_that_fails_is_quoted() -> None:
    text = said(TraceError, lambda: inspect(Failing(), torch.randn(2, 8)))
    assert "Failing could not be run" in text
    assert "KeyError" in text
    assert "the user's own complaint" in text


def test_inputs_of_a_wrong_shape_are_shown(net: Net) -> None:
    text = said(TraceError, lambda: inspect(net, torch.randn(2, 9)))
    assert "(2, 9)" in text
    assert "shapes cannot be multiplied" in text


@pytest.mark.parametrize(
    "inputs", [None, (), {}, {"y": torch.zeros(2, 8)}, (torch.zeros(2, 8),) * 2]
)
def test_inputs_that_do_not_fit_the_signature_get_a_hint(net: Net, inputs: Any) -> None:
    text = said(TraceError, lambda: inspect(net, inputs))
    assert "keyword inputs as a dict" in text


@pytest.mark.parametrize("model", [None, 3, Net, "model.pt", {"weight": torch.zeros(3)}])
def test_what_is_no_module_is_refused(model: Any) -> None:
    text = said(UnsupportedModelError, lambda: inspect(model, torch.randn(2, 8)))
    assert "torch.nn.Module" in text
    said(UnsupportedModelError, lambda: tonsor.prune(model, torch.randn(2, 8), budget="macs=50%"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace"])
def test_a_scripted_model_is_refused(how: str) -> None:
    x = torch.randn(2, 8)
    model: Any = torch.jit.script(Net()) if how == "script" else torch.jit.trace(Net(), x)
    text = said(UnsupportedModelError, lambda: inspect(model, x))
    assert "then script" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantised_model_is_refused_with_the_layer_named() -> None:
    model = torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}, torch.qint8)
    text = said(UnsupportedModelError, lambda: inspect(model, torch.randn(2, 8)))
    assert "'first' is quantised" in text
    assert "Prune the float model first" in text


def test_a_lazy_module_is_refused_until_it_has_a_size() -> None:
    model = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(4))
    text = said(UnsupportedModelError, lambda: inspect(model, torch.randn(2, 8)))
    assert "'0.weight' has no size yet" in text
    model(torch.randn(2, 8))
    assert [g.name for g in inspect(model, torch.randn(2, 8)).prunable] == ["0.weight[0]"]


# ---------------------------------------------------------------- wrappers


def check_unwrapped(wrapped: nn.Module, inner: Net) -> None:
    x = torch.randn(2, 8)
    anatomy = inspect(wrapped, x)
    assert anatomy.model is inner
    assert [g.name for g in anatomy.prunable] == ["first.weight[0]", "second.weight[0]"]
    made = plan(anatomy, "macs=50%")
    for model in (wrapped, inner):
        assert type(made.apply(model)) is Net
    slim, report = tonsor.prune(wrapped, x, budget="macs=50%")
    assert type(slim) is Net
    assert report.proof is not None


def test_data_parallel_is_unwrapped(net: Net) -> None:
    check_unwrapped(nn.DataParallel(net), net)


def test_compiled_models_are_unwrapped() -> None:
    net = Net()  # which torch.compile writes a note on
    wrapped: Any = torch.compile(net, backend="eager")
    check_unwrapped(wrapped, net)
    check_unwrapped(nn.DataParallel(wrapped), net)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_distributed_data_parallel_is_unwrapped(net: Net, tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        check_unwrapped(nn.parallel.DistributedDataParallel(net), net)
    finally:
        torch.distributed.destroy_process_group()


def test_a_module_compiled_in_place_stays_so(net: Net) -> None:
    net.compile(backend="eager")
    slim, _ = tonsor.prune(net, torch.randn(2, 8), budget="macs=50%")
    assert slim(torch.randn(2, 8)).shape == (2, 4)


# ---------------------------------------------------------------- weights without values


def test_nan_in_a_weight_is_found_before_it_ranks_anything() -> None:
    model = Net()
    with torch.no_grad():
        model.second.weight[3, 5] = float("nan")
    anatomy = inspect(model, torch.randn(2, 8))
    text = said(ScoreError, lambda: plan(anatomy, "macs=50%"))
    assert "'second.weight'" in text
    assert "nan" in text
    assert plan(anatomy, "macs=50%", by="random").keep


def test_a_model_on_meta_can_be_planned_but_neither_ranked_nor_cut() -> None:
    with torch.device("meta"):
        model, x = Net(), torch.randn(2, 8)
    anatomy = inspect(model, x)
    assert len(anatomy.prunable) == 2
    made = plan(anatomy, "macs=50%", by="random")
    assert made.keep
    text = said(ScoreError, lambda: plan(anatomy, "macs=50%", by="l2"))
    assert "meta device" in text
    assert "by='random'" in text
    text = said(SurgeryError, lambda: made.apply(model))
    assert "meta device" in text
    assert "load them" in text
    slim = made.apply(Net(), inputs=torch.randn(2, 8))  # the same plan, once there are weights
    assert isinstance(slim, Net)
    assert slim.first.out_features < 16


def test_a_real_model_takes_inputs_without_values(net: Net) -> None:
    assert len(inspect(net, torch.randn(2, 8, device="meta"), mode="fake").prunable) == 2


# ---------------------------------------------------------------- plans and the wrong model


def test_a_plan_for_another_model_is_refused(anatomy: Anatomy) -> None:
    made = plan(anatomy, "macs=50%")
    other = Net()
    other.second = nn.Linear(16, 20)
    text = said(PlanError, lambda: made.apply(other))
    assert "'second.weight' has shape (20, 16)" in text
    assert "(12, 16)" in text
    for wrong in (nn.Linear(8, 16), nn.Sequential(Net()), nn.Identity()):
        said(PlanError, lambda m=wrong: made.apply(m))
    bigger = Net()
    bigger.extra = nn.Linear(2, 2)
    assert "extra" in said(PlanError, lambda: made.apply(bigger))


def test_a_plan_is_not_applied_twice(anatomy: Anatomy) -> None:
    made = plan(anatomy, "macs=50%")
    slim = made.apply(anatomy.model)
    assert "rebase" in said(PlanError, lambda: made.apply(slim))


@pytest.mark.parametrize("verb", ["apply", "mask", "check"])
@pytest.mark.parametrize("model", [None, 3, Net])
def test_a_plan_for_no_module_is_refused(anatomy: Anatomy, verb: str, model: Any) -> None:
    made = plan(anatomy, "macs=50%")
    said(TonsorError, lambda: getattr(made, verb)(model))


def test_a_proof_needs_inputs(anatomy: Anatomy) -> None:
    made = plan(anatomy, "macs=50%")
    without = copy.copy(made)
    object.__setattr__(without, "probe", None)
    text = said(PlanError, lambda: without.apply(anatomy.model))
    assert "inputs=" in text
    assert "verify=False" in text
    assert isinstance(without.apply(anatomy.model, inputs=torch.randn(3, 8)), Net)


# ---------------------------------------------------------------- after an error all is well


def test_the_grad_mode_and_the_random_state_survive_an_error(net: Net) -> None:
    failing, state = Failing(), torch.get_rng_state()
    said(TraceError, lambda: inspect(net, torch.ones(2, 9)))
    said(TraceError, lambda: inspect(failing, torch.ones(2, 8)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
    net(torch.ones(2, 8)).sum().backward()
    assert net.first.weight.grad is not None
    net.zero_grad()


class Slow(nn.Module):
    """Parameters of several dtypes, one of them no number to be scored."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16).bfloat16(), nn.Linear(16, 4).double()
        self.table = nn.Parameter(torch.arange(16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x.bfloat16()).relu().double() * self.table)


def test_parameters_of_several_dtypes_are_no_error() -> None:
    slim, report = tonsor.prune(Slow(), torch.randn(2, 8), budget="params=50%")
    assert [p.dtype for p in slim.parameters()] == [p.dtype for p in Slow().parameters()]
    assert report.proof is not None
