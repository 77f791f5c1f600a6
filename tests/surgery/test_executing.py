"""Layers of fibres are timed on what they get, run as is faster, and plans remember it."""

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
from tonsor.fibres import Kind
from tonsor.plan_json import plan_from_json, plan_text
from tonsor.plans import Plan
from tonsor.select.fibres.execution import fastest
from tonsor.surgery import executing
from tonsor.surgery.column_conv import columned
from tonsor.surgery.executing import time_layers
from tonsor.surgery.fibre_conv import FibreConv
from tonsor.surgery.stripe_conv import striped

KINDS: tuple[Kind, ...] = ("stripes", "columns")
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


def net(run: Any = "", kind: Kind = "stripes") -> Any:
    torch.manual_seed(0)
    made = Net()
    rng = np.random.default_rng(0)
    for name in ("first", "again", "apart", "never"):
        conv = getattr(made, name)
        rows, make = (6, striped) if kind == "stripes" else (conv.in_channels, columned)
        setattr(made, name, make(conv, rng.random((rows, 9)) < 0.4, run))
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
        forward = FibreConv.forward

        def watched(layer: FibreConv, x: Tensor) -> Tensor:
            self.seen.append((self.names[id(layer)], layer.run, tuple(x.shape)))
            assert not layer.training
            assert not torch.is_grad_enabled()
            return forward(layer, x)

        def clock(run: Any, repeats: int, wait: Any) -> float:
            run()
            name, way, _ = self.seen[-1]
            return 1e-3 * repeats * self.milliseconds[name][way != "dense"]

        monkeypatch.setattr(FibreConv, "forward", watched)
        monkeypatch.setattr(clocks, "_clock", clock)


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_is_timed_on_what_it_gets_first(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net(kind=kind).train()
    model.norm.eval()
    modes = {n: m.training for n, m in model.named_modules()}
    state = {n: t.clone() for n, t in model.state_dict().items()}
    clock = Clock({"first": (4.0, 2.0), "again": (4.0, 8.0)}, model)
    clock.start(monkeypatch)
    first, again = time_layers(model, X, rounds=3)
    assert (first.name, first.dense_ms, first.fibres_ms, first.run, first.kind) == (
        "first", pytest.approx(4), pytest.approx(2), kind, kind,
    )  # fmt: skip
    assert (again.name, again.run, again.ratio.median) == ("again", "dense", pytest.approx(2))
    assert str(first).startswith(f"first: dense 4 ms, {kind} 2 ms, 50.0%")
    assert (model.first.run, model.again.run) == (kind, "dense")
    whole = [s for s in clock.seen if s[0] == "apart"]
    assert len(whole) == 1  # in the run of the model, and not timed
    shapes = {name: {s[2] for s in clock.seen[4:] if s[0] == name} for name in ("first", "again")}
    assert shapes == {"first": {(2, 3, 8, 8)}, "again": {(2, 6, 3, 3)}}
    for name in shapes:  # both ways run equally often once they are warm, in turns
        ways = [way for n, way, _ in clock.seen[4:] if n == name][-6:]
        assert ways in (["dense", kind, kind, "dense", "dense", kind],
                        [kind, "dense", "dense", kind, kind, "dense"])  # fmt: skip
    assert {n: m.training for n, m in model.named_modules()} == modes
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert not any(m._forward_pre_hooks for m in model.modules())


@given(
    st.floats(0.5, 20), st.floats(0.5, 20), st.sampled_from([0.0, 0.03, 0.5]),
    st.sampled_from(KINDS),
)  # fmt: skip
def test_fibres_are_taken_only_if_they_are_faster_by_the_margin(
    dense: float, fibres: float, margin: float, kind: Kind
) -> None:
    for before in ("dense", kind):
        model = nn.Sequential(net(before, kind).first)
        with pytest.MonkeyPatch.context() as patch:
            Clock({"0": (dense, fibres)}, model).start(patch)
            (timing,) = time_layers(model, X, rounds=1, margin=margin)
        wanted = kind if fibres < (1 - margin) * dense else "dense"
        assert timing.ratio.median == pytest.approx(fibres / dense)
        if abs(fibres - (1 - margin) * dense) > 1e-6:
            assert timing.run == model[0].run == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dense", [True, False])
def test_real_timings_are_followed(dense: bool, kind: Kind) -> None:
    before = "dense" if dense else kind
    model = net(before, kind)
    timings = time_layers(model, {"x": X}, rounds=3)
    assert [t.name for t in timings] == ["first", "again"]
    for timing in timings:
        assert min(timing.dense_ms, timing.fibres_ms) > 0
        assert timing.run == (kind if timing.ratio.median < 0.97 else "dense")
        assert model.get_submodule(timing.name).run == timing.run
    assert model.apart.run == "dense"
    assert model.never.run == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_leaves_everything_as_it_was(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(kind, kind)
    with pytest.raises(RuntimeError, match="3 channels"):
        time_layers(model, torch.randn(2, 4, 8, 8))

    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(executing, "take_turns", lambda *_, **__: interrupt())
    with pytest.raises(KeyboardInterrupt):
        time_layers(model, X)
    assert model.training
    assert model.first.run == model.again.run == kind
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"margin": 1.0}, {"margin": -0.1}])
def test_senseless_options_are_refused(wrong: Any) -> None:
    with pytest.raises(SurgeryError, match="at least one round and a margin"):
        time_layers(net(), X, **wrong)


# ---------------------------------------------------------------- what a plan says of it


def _kept(slim: Any) -> Any:
    return slim[0].kept.flatten(1).numpy()


def pruned(kind: Kind = "stripes") -> tuple[nn.Module, nn.Module, Plan]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(384, 2),
    )  # fmt: skip
    prune = tonsor.prune_stripes if kind == "stripes" else tonsor.prune_columns
    slim, report = prune(model, X, budget="pieces=40%", by="random")
    assert len(report.plan.fibres) == 2
    return model, slim, report.plan


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_remembers_how_its_layers_run(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    model, slim, plan = pruned(kind)
    with monkeypatch.context() as patch:
        Clock({"0": (4.0, 1.0), "2": (1.0, 4.0)}, slim).start(patch)
        found, timings = fastest(slim, plan, X, rounds=2)
    assert {n: s.kind for n, s in found.fibres.items()} == dict.fromkeys(found.fibres, kind)
    assert {n: s.run for n, s in found.fibres.items()} == {"0.weight": kind, "2.weight": "dense"}
    assert {n: replace(s, run="") for n, s in found.fibres.items()} == dict(plan.fibres)
    told = found.made_by["execution"]
    assert told["layers"] == {"0": [4.0, 1.0], "2": [1.0, 4.0]}
    assert told["conditions"] == (
        f"eager, cpu, float32, batch 2, 1 thread, torch {torch.__version__}, "
        "medians of 2 rounds in turns"
    )
    assert "not reached" not in told
    assert {k: v for k, v in found.made_by.items() if k != "execution"} == dict(plan.made_by)
    assert [t.run for t in timings] == [kind, "dense"]
    again = plan_from_json(json.loads(plan_text(found)))
    assert again.made_by["execution"] == told
    for made in (found.apply(model), again.apply(model, inputs=X)):
        runs = [m.run for m in made.modules() if isinstance(m, FibreConv)]
        assert runs == [kind, "dense"]
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


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_of_another_model_is_refused(kind: Kind) -> None:
    model, slim, plan = pruned(kind)
    other: Any = copy.deepcopy(slim)
    make = striped if kind == "stripes" else columned
    other[0] = make(nn.Conv2d(3, 6, 3, padding=1), np.roll(_kept(slim), 1, axis=0))
    with pytest.raises(PlanError, match=rf"'0' has .* {kind} of .*, and the plan keeps .* others"):
        fastest(other, plan, X)
    with pytest.raises(PlanError, match=f"keeps {kind} of '0', the model has a Conv2d there"):
        fastest(model, plan, X)
    with pytest.raises(PlanError, match=f"keeps {kind} of '0', the model has no such layer"):
        fastest(nn.Identity(), plan, X)
    less = replace(plan, fibres={n: s for n, s in plan.fibres.items() if n != "2.weight"})
    with pytest.raises(PlanError, match=f"'2' is a layer of {kind} of which the plan knows"):
        fastest(slim, less, X)


def test_a_layer_of_the_other_kind_is_refused() -> None:
    _, slim, plan = pruned("columns")
    other: Any = copy.deepcopy(slim)
    given = plan.columns["2.weight"]
    assert len(given.rows) == 6  # so that the masks of both kinds have the same shape
    other[2] = striped(nn.Conv2d(6, 6, 3, padding=1), given.mask)
    with pytest.raises(PlanError, match=r"'2' has .* stripes of 54, and the plan keeps"):
        fastest(other, plan, X)
