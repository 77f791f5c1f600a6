"""Layers of stripes are timed on what they get, run as is faster, and plans remember it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tonsor.cost import rounds as clocks
from tonsor.errors import PlanError, SurgeryError
from tonsor.plan_json import plan_from_json, plan_text
from tonsor.plans import Plan
from tonsor.select.fibres.execution import fastest
from tonsor.surgery import executing
from tonsor.surgery.executing import time_layers
from tonsor.surgery.stripe_conv import StripeConv, striped

X = torch.randn(2, 3, 8, 8)


class Net(nn.Module):
    """Two convolutions of which one runs twice, one with groups, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.again = nn.Conv2d(6, 6, 3, padding=1)
        self.apart = nn.Conv2d(6, 6, 3, groups=3)
        self.never = nn.Conv2d(6, 6, 3)
        self.norm, self.drop = nn.BatchNorm2d(6), nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return self.drop(self.apart(self.again(self.again(x)[..., :2])[..., [0, 0, 0]]))


def net(run: Any = "") -> Any:
    torch.manual_seed(0)
    made = Net()
    rng = np.random.default_rng(0)
    for name in ("first", "again", "apart", "never"):
        setattr(made, name, striped(getattr(made, name), rng.random((6, 9)) < 0.4, run))
    return made


class Clock:
    """Says that each layer takes as long as was agreed, in the way that it runs in.

    What is timed does run, so that it is known what is given to whom.
    """

    def __init__(self, milliseconds: Mapping[str, tuple[float, float]], model: nn.Module) -> None:
        self.milliseconds = milliseconds
        self.names = {id(m): n for n, m in model.named_modules()}
        self.seen: list[tuple[str, str, tuple[int, ...]]] = []

    def start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        forward = StripeConv.forward

        def watched(layer: StripeConv, x: Tensor) -> Tensor:
            self.seen.append((self.names[id(layer)], layer.run, tuple(x.shape)))
            assert not layer.training
            assert not torch.is_grad_enabled()
            return forward(layer, x)

        def clock(run: Any, repeats: int, wait: Any) -> float:
            run()
            name, way, _ = self.seen[-1]
            return 1e-3 * repeats * self.milliseconds[name][way == "stripes"]

        monkeypatch.setattr(StripeConv, "forward", watched)
        monkeypatch.setattr(clocks, "_clock", clock)


def test_each_layer_is_timed_on_what_it_gets_first(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net().train()
    model.norm.eval()
    modes = {n: m.training for n, m in model.named_modules()}
    state = {n: t.clone() for n, t in model.state_dict().items()}
    clock = Clock({"first": (4.0, 2.0), "again": (4.0, 8.0)}, model)
    clock.start(monkeypatch)
    first, again = time_layers(model, X, rounds=3)
    assert (first.name, first.dense_ms, first.fibres_ms, first.run) == (
        "first", pytest.approx(4), pytest.approx(2), "stripes",
    )  # fmt: skip
    assert (again.name, again.run, again.ratio.median) == ("again", "dense", pytest.approx(2))
    assert str(first).startswith("first: dense 4 ms, stripes 2 ms, 50.0%")
    assert (model.first.run, model.again.run) == ("stripes", "dense")
    whole = [s for s in clock.seen if s[0] == "apart"]
    assert len(whole) == 1  # in the run of the model, and not timed
    shapes = {name: {s[2] for s in clock.seen[4:] if s[0] == name} for name in ("first", "again")}
    assert shapes == {"first": {(2, 3, 8, 8)}, "again": {(2, 6, 3, 3)}}
    for name in shapes:  # both ways run equally often once they are warm, in turns
        ways = [way for n, way, _ in clock.seen[4:] if n == name][-6:]
        assert ways in (["dense", "stripes", "stripes", "dense", "dense", "stripes"],
                        ["stripes", "dense", "dense", "stripes", "stripes", "dense"])  # fmt: skip
    assert {n: m.training for n, m in model.named_modules()} == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert not any(m._forward_pre_hooks for m in model.modules())


@given(st.floats(0.5, 20), st.floats(0.5, 20), st.sampled_from([0.0, 0.03, 0.5]))
def test_stripes_are_taken_only_if_they_are_faster_by_the_margin(
    dense: float, stripes: float, margin: float
) -> None:
    for before in ("dense", "stripes"):
        model = nn.Sequential(net(before).first)
        with pytest.MonkeyPatch.context() as patch:
            Clock({"0": (dense, stripes)}, model).start(patch)
            (timing,) = time_layers(model, X, rounds=1, margin=margin)
        wanted = "stripes" if stripes < (1 - margin) * dense else "dense"
        assert timing.ratio.median == pytest.approx(stripes / dense)
        if abs(stripes - (1 - margin) * dense) > 1e-6:
            assert timing.run == model[0].run == wanted


@pytest.mark.parametrize("before", ["dense", "stripes"])
def test_real_timings_are_followed(before: Any) -> None:
    model = net(before)
    timings = time_layers(model, {"x": X}, rounds=3)
    assert [t.name for t in timings] == ["first", "again"]
    for timing in timings:
        assert min(timing.dense_ms, timing.fibres_ms) > 0
        assert (timing.run == "stripes") == (timing.ratio.median < 0.97)
        assert model.get_submodule(timing.name).run == timing.run
    assert model.apart.run == "dense"
    assert model.never.run == before


def test_a_failure_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net("stripes")
    with pytest.raises(RuntimeError, match="3 channels"):
        time_layers(model, torch.randn(2, 4, 8, 8))

    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(executing, "take_turns", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        time_layers(model, X)
    assert model.training
    assert model.first.run == model.again.run == "stripes"
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"margin": 1.0}, {"margin": -0.1}])
def test_senseless_options_are_refused(wrong: Any) -> None:
    with pytest.raises(SurgeryError, match="at least one round and a margin"):
        time_layers(net(), X, **wrong)


# ---------------------------------------------------------------- what a plan says of it


def _kept(slim: Any) -> Any:
    return slim[0].kept.flatten(1).numpy()


def pruned() -> tuple[nn.Module, nn.Module, Plan]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(384, 2),
    )  # fmt: skip
    slim, report = tonsor.prune_stripes(model, X, budget="pieces=40%", by="random")
    assert len(report.plan.stripes) == 2
    return model, slim, report.plan


def test_a_plan_remembers_how_its_layers_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, slim, plan = pruned()
    with monkeypatch.context() as patch:
        Clock({"0": (4.0, 1.0), "2": (1.0, 4.0)}, slim).start(patch)
        found, timings = fastest(slim, plan, X, rounds=2)
    assert {n: s.run for n, s in found.stripes.items()} == {
        "0.weight": "stripes", "2.weight": "dense",
    }  # fmt: skip
    assert {n: replace(s, run="") for n, s in found.stripes.items()} == dict(plan.stripes)
    told = found.made_by["execution"]
    assert told["layers"] == {"0": [4.0, 1.0], "2": [1.0, 4.0]}
    assert told["conditions"] == (
        f"eager, cpu, float32, batch 2, 1 thread, torch {torch.__version__}, "
        "medians of 2 rounds in turns"
    )
    assert "not reached" not in told
    assert {k: v for k, v in found.made_by.items() if k != "execution"} == dict(plan.made_by)
    assert [t.run for t in timings] == ["stripes", "dense"]
    again = plan_from_json(json.loads(plan_text(found)))
    assert again.made_by["execution"] == told
    for made in (found.apply(model), again.apply(model, inputs=X)):
        runs = [m.run for m in made.modules() if isinstance(m, StripeConv)]
        assert runs == ["stripes", "dense"]
        with torch.no_grad():
            torch.testing.assert_close(made.eval()(X), slim.eval()(X))


def test_layers_that_are_not_reached_are_named() -> None:
    class Half(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body: Any = body

        def forward(self, x: Tensor) -> Tensor:
            return self.body[0](x) if x.shape[0] == 1 else self.body(x)

    body, _, _ = pruned()
    slim, report = tonsor.prune_stripes(Half(body), X, budget="pieces=40%", by="random")
    plan, timings = fastest(slim, report.plan, X[:1], rounds=1)
    assert [t.name for t in timings] == ["body.0"]
    assert plan.made_by["execution"]["not reached"] == ["body.2"]


def test_a_plan_of_another_model_is_refused() -> None:
    model, slim, plan = pruned()
    other: Any = copy.deepcopy(slim)
    other[0] = striped(nn.Conv2d(3, 6, 3, padding=1), np.roll(_kept(slim), 1, axis=0))
    with pytest.raises(PlanError, match=r"'0' has .* stripes of .*, and the plan keeps .* others"):
        fastest(other, plan, X)
    with pytest.raises(PlanError, match="keeps stripes of '0', the model has a Conv2d there"):
        fastest(model, plan, X)
    with pytest.raises(PlanError, match="keeps stripes of '0', the model has no such layer"):
        fastest(nn.Identity(), plan, X)
    less = replace(plan, fibres={n: s for n, s in plan.stripes.items() if n != "2.weight"})
    with pytest.raises(PlanError, match="'2' is a layer of stripes of which the plan knows"):
        fastest(slim, less, X)
