"""Engines: each runs what it is given, computes what torch computes, and touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tonsor.cost.engines import exported, native
from tonsor.cost.engines.ready import engines, prepare
from tonsor.cost.engines.registry import ENGINES, engine
from tonsor.cost.latency import measure
from tonsor.errors import EngineError, SelectionError


def usable(name: str) -> str:
    if reason := engines()[name]:
        pytest.skip(f"{name}: {reason}")
    return name


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
        nn.Dropout(), nn.Flatten(), nn.Linear(8 * 64, 5),
    )  # fmt: skip


class Nest(nn.Module):
    """Takes a keyword in a dictionary and a constant, and returns a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, more: dict[str, Tensor], *, times: int) -> dict[str, Any]:
        y = self.layer(x) * times + more["shift"]
        return {"logits": y, "hidden": (y.relu(), x)}


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "small": lambda: (small(), torch.randn(2, 3, 8, 8)),
    "nest": lambda: (
        Nest(),
        {"x": torch.randn(2, 4), "more": {"shift": torch.randn(4)}, "times": 3},
    ),
}
# Compiling takes long, so one model is compiled here and the rest under `slow`.
CASES = [
    pytest.param(e, m, marks=[pytest.mark.slow] if (e, m) == ("compile", "small") else [])
    for e in ("eager", "compile", "onnxruntime", "openvino")
    for m in MODELS
]


@pytest.mark.parametrize(("name", "model"), CASES)
def test_an_engine_computes_what_torch_computes_and_touches_nothing(name: str, model: str) -> None:
    net, inputs = MODELS[model]()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    ready = prepare(usable(name), net, inputs)
    got = ENGINES[name].flat(ready())
    assert all(m.training for m in net.modules())
    for n, t in net.state_dict().items():
        assert torch.equal(t, before[n])
    with torch.no_grad():
        wanted = native.flat_tensors(ready.inputs.call(net.eval()))
    assert len(got) == len(wanted)
    for mine, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    again = ENGINES[name].flat(ready())
    assert torch.equal(got[0], again[0])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_exported_model_is_measured_in_turns(name: str) -> None:
    found = measure(
        {"one": small(), "other": small()}, torch.randn(2, 3, 8, 8), engine=usable(name), rounds=3
    )
    assert found.conditions.startswith(f"{name}, cpu, float32, batch 2, 1 thread")
    assert found["one"].median_ms > 0


def test_many_models_of_one_class_are_each_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.utils import counters

    usable("compile")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    seen = counters["stats"]["unique_graphs"]
    runs = [prepare("compile", nn.Linear(4, n), torch.randn(1, 4)) for n in range(1, 13)]
    for run in runs:
        run()
    assert counters["stats"]["unique_graphs"] - seen == len(runs)


def test_every_engine_is_there_or_says_what_it_lacks() -> None:
    assert list(engines()) == ["eager", "compile", "onnxruntime", "openvino"]
    assert engines()["eager"] == ""
    missing = exported.lacking("torch", "no_such_package", "nor_this_one")
    assert missing() == (
        "no_such_package and nor_this_one must be installed: pip install 'tonsor[engines]'"
    )


def test_a_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(EngineError, match="CXX names 'no-such-compiler'"):
        prepare("compile", nn.Linear(2, 2), torch.zeros(1, 2))


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SelectionError, match="did you mean 'onnxruntime'"):
        prepare("onnxruntim", nn.Linear(2, 2), torch.zeros(1, 2))


def test_an_engine_has_its_name_for_itself() -> None:
    with pytest.raises(ValueError, match="called 'eager' already"):
        engine("eager", missing=lambda: "", flat=native.flat_tensors)(native.eager)


def test_another_device_than_the_engine_s_is_refused() -> None:
    with pytest.raises(EngineError, match=r"runs on cpu only.*on meta; give device='cpu'"):
        prepare(usable("onnxruntime"), nn.Linear(2, 2), torch.zeros(1, 2), device="meta")


class Choosy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_model_that_can_t_be_exported_is_refused_with_a_way_out() -> None:
    with pytest.raises(EngineError, match=r"can't take this model.*'eager' runs whatever"):
        prepare(usable("onnxruntime"), Choosy(), torch.ones(2))


def test_an_engine_that_computes_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tonsor.cost.engines.registry import _ENGINES, Engine

    def wrong(model: Any, inputs: Any, threads: int) -> Callable[[], Any]:
        return lambda: 1.01 * model(*inputs.args)

    odd = Engine("odd", wrong, lambda: "", 3, True, (), native.flat_tensors)
    monkeypatch.setitem(_ENGINES, "odd", odd)
    with pytest.raises(EngineError, match=r"differ by up to 0.01 of the largest"):
        prepare("odd", nn.Linear(2, 2), torch.ones(1, 2))


class Growing(nn.Module):
    def forward(self, x: Tensor, cache: dict[str, Tensor]) -> Tensor:
        cache["past"] = torch.cat([cache["past"], x])
        return cache["past"].sum()


def test_inputs_that_grow_with_every_run_are_refused() -> None:
    with pytest.raises(EngineError, match="changes the inputs"):
        prepare("eager", Growing(), {"x": torch.ones(2), "cache": {"past": torch.ones(0)}})
