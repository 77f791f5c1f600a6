"""A proof finds what is wrong and says where, however little of the two models it holds."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.errors import ProofError
from tonsor.graph.inputs import Inputs
from tonsor.surgery import late, masked, side
from tonsor.surgery.precision import DOUBLE


class Net(nn.Module):
    """With a norm over a cut axis, so that the reference has to compute it on what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 32)
        self.norm = nn.LayerNorm(32)
        self.second = nn.Linear(32, 24)
        self.third = nn.Linear(24, 20)
        self.last = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).tanh()
        return self.last(self.third(self.second(x).tanh()).tanh())


@pytest.fixture(params=[1, 1 << 16], ids=["late", "whole"])
def _least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LEAST", request.param)


def halved(model: nn.Module, x: Tensor) -> tuple[tonsor.Plan, nn.Module]:
    plan = tonsor.plan(tonsor.inspect(model, x), "params=50%")
    return plan, plan.apply(model, verify=False)


@pytest.mark.usefixtures("_least")
@pytest.mark.parametrize("layer", ["first", "norm", "second", "third", "last"])
def test_one_weight_that_is_wrong_is_found_and_its_layer_named(layer: str) -> None:
    model, x = Net(), torch.randn(5, 8)
    plan, slim = halved(model, x)
    assert plan.prove(model, slim).masked_operators == 1
    with torch.no_grad():
        slim.get_parameter(f"{layer}.weight")[0] += 1e-3
    with pytest.raises(ProofError) as caught:
        plan.prove(model, slim)
    assert f"First seen in '{layer}'" in str(caught.value)


@pytest.mark.usefixtures("_least")
def test_the_original_shape_is_no_slim_model() -> None:
    model, x = Net(), torch.randn(5, 8)
    plan, _ = halved(model, x)
    with pytest.raises(ProofError, match="differ by"):
        plan.prove(model, model)


class Steered(Net):
    """Goes another way where values say so, which shapes alone can't tell."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x.relu() if x.sum() > 0 else x.tanh()


def test_a_run_that_could_not_be_foreseen_is_recorded_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = []
    search = masked._search

    def watched(*args: Any) -> Any:
        searched.append(args)
        return search(*args)

    monkeypatch.setattr(masked, "_search", watched)
    for model, times in ((Net(), 0), (Steered(), 1)):
        x = torch.randn(5, 8)
        plan, slim = halved(model, x)
        searched.clear()
        assert plan.prove(model, slim).masked_operators == 1
        assert len(searched) >= times
        assert bool(searched) is bool(times)


class OtherwiseOnShapes(Net):
    """Takes no softmax where it is only traced, as some models make no mask there."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        x = x.sigmoid() if "Fake" in type(x).__name__ else x.softmax(-1)
        return self.last(self.third(self.second(x).tanh()).tanh())


def test_what_was_foreseen_wrongly_is_not_believed() -> None:
    """The softmax is seen by nothing but the run itself."""
    model, x = OtherwiseOnShapes(), torch.randn(5, 8)
    plan = tonsor.plan(tonsor.inspect(model, x, mode="real"), ratios={"first": 0.5})
    slim = plan.apply(model, verify=False)
    assert plan.prove(model, slim).masked_operators == 2


class Counts(Net):
    """Remembers, in a buffer and in Python, how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ran", torch.zeros(()))
        self.times: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.ran += 1
        self.times.append(1)
        return super().forward(x) * self.ran * len(self.times)


@pytest.mark.usefixtures("_least")
def test_a_run_leaves_nothing_for_the_next_one() -> None:
    model, x = side.Side(Counts(), DOUBLE), Inputs(torch.randn(5, 8))
    assert torch.equal(model.run(x), model.run(x))


class Noisy(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


@pytest.mark.usefixtures("_least")
@pytest.mark.parametrize("kind", [Counts, Noisy])
def test_every_run_starts_from_the_same(kind: type[Net]) -> None:
    model, x = kind(), torch.randn(5, 8)
    plan, slim = halved(model, x)
    state = torch.get_rng_state()
    assert plan.prove(model, slim).error < 1e-9
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() == torch.float32


def test_both_models_run_once_for_each_of_two_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be foreseen costs nothing more than the passes that are compared."""
    runs: list[Tensor] = []
    run = side.Side.run

    def watched(self: side.Side, probe: Any, *args: Any) -> Any:
        runs.append(probe.args[0])
        return run(self, probe, *args)

    monkeypatch.setattr(side.Side, "run", watched)
    monkeypatch.setattr(side.Side, "record", None)
    model, x = Net(), torch.randn(5, 8)
    plan, slim = halved(model, x)
    plan.prove(model, slim)
    assert [torch.equal(given, x) for given in runs] == [True, False, True, False]
