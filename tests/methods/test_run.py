from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tests.methods.nets import batches, drive, residual
from tests.train.small import digits, same
from tests.train.test_processes import TWO, to_the_end
from tonsor.anatomy import inspect
from tonsor.errors import StoppedError
from tonsor.methods.gradual import Gradual
from tonsor.methods.needed import rounds_needed, steps_needed
from tonsor.methods.run import method_for, prune_while_training
from tonsor.methods.soft import Soft
from tonsor.plan_json import load_plan
from tonsor.train import Batches, Recipe, calibrate, evaluate, open_data, split
from tonsor.zoo import build, load

RECIPE = Recipe(epochs=3, batch=32, lr=0.05, ema=0.9)
QUIET: dict[str, Any] = {"quiet": True, "board": False, "device": "cpu"}


def prune(folder: Path, schedule: str, seed: int = 0, recipe: Recipe = RECIPE, **options: Any):
    net, anatomy = residual(seed)
    given = {"by": "l2", "budget": "macs=50%", **QUIET, **options}
    slim, result, plan = prune_while_training(
        net, anatomy, digits(), recipe, schedule=schedule, folder=folder, **given
    )
    return net, slim, result, plan


def judged_by() -> Batches:
    splits = digits()
    return Batches(splits.test, size=32, mean=splits.mean, std=splits.std, shuffle=False, seed=0)


def learned_from() -> Batches:
    splits = digits()
    return Batches(splits.train, size=32, mean=splits.mean, std=splits.std, shuffle=True, seed=0)


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        ("iterative:4/2", {"by": "taylor_weight"}),
        ("fraction:0.2/3", {"recalibrate": 3}),
        ("ramp:4/3", {"by": "taylor_gate"}),
        ("one-shot", {"by": "fisher"}),
        ("soft:7", {"combine": "producer", "recalibrate": 3}),
    ],
)
def test_a_model_is_trained_pruned_cut_and_judged(
    tmp_path: Path, schedule: str, options: dict[str, Any]
) -> None:
    net, slim, result, plan = prune(tmp_path, schedule, **options)
    assert plan.made_by["reached"] <= plan.made_by["limit"]
    assert result.plan is not None
    assert result.plan.keep == plan.keep
    judged = evaluate(slim, judged_by())
    assert result.final == judged
    assert result.final.accuracy > 0.2
    twin = plan.apply(net)
    assert same(twin, slim) == ("recalibrate" not in options)
    if "recalibrate" in options:
        calibrate(twin, learned_from(), options["recalibrate"])
    assert same(twin, slim)
    if options.get("by"):  # the schedule was through, so what was trained is what is cut
        assert evaluate(net, judged_by()).correct == judged.correct
    assert any("last weights are taken" in note for note in result.notes)
    assert result.chosen_epoch == 3
    assert json.loads((tmp_path / "result.json").read_text())["final"]["correct"] == judged.correct
    assert load_plan(tmp_path / "plan.json").keep == plan.keep
    back = tonsor.load(tmp_path / "slim.tonsor", residual(seed=3)[0])
    assert same(back, slim)


def test_an_end_before_the_last_round_is_in_the_notes(tmp_path: Path) -> None:
    _, slim, result, plan = prune(tmp_path, "iterative:1/3", recipe=RECIPE.but(choose="last"))
    assert any("are cut at once" in note for note in result.notes)
    assert not any("last weights are taken" in note for note in result.notes)
    assert plan.made_by["reached"] <= plan.made_by["limit"]
    assert result.final == evaluate(slim, judged_by())


@pytest.mark.parametrize("schedule", ["iterative:4/3", "soft:4"])
@pytest.mark.parametrize("by", ["taylor_weight", "l2"])
def test_ctrl_c_and_going_on_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, by: str
) -> None:
    whole = prune(tmp_path / "a", schedule, by=by)
    kind = Soft if "soft" in schedule else Gradual
    real = kind.after_step

    def stopping(self: Any, step: int) -> None:
        real(self, step)
        if step == 10:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kind, "after_step", stopping)
    with pytest.raises(StoppedError, match="after step 11"):
        prune(tmp_path / "b", schedule, by=by)
    monkeypatch.undo()
    again = prune(tmp_path / "b", schedule, seed=5, by=by, resume=True)
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])
    assert whole[3] == again[3]
    assert torch.equal(whole[2].losses, again[2].losses)


def test_the_schedule_says_which_method_it_is() -> None:
    net, anatomy = residual()
    options: dict[str, Any] = {"budget": "macs=50%"}
    assert isinstance(method_for(net, anatomy, schedule="soft:3", **options), Soft)
    assert isinstance(method_for(net, anatomy, schedule="ramp:3/3", **options), Gradual)


@pytest.mark.parametrize(
    "schedule", ["iterative:5/3", "iterative:2/1", "fraction:0.2/2", "ramp:4/2", "one-shot"]
)
def test_as_many_steps_are_enough_as_are_said(schedule: str) -> None:
    net, anatomy = residual()
    steps = steps_needed(anatomy, schedule, "pieces=50%")
    method = Gradual(net, anatomy, budget="pieces=50%", schedule=schedule)
    drive(net, method, batches(steps - 1))
    assert method.over == (schedule == "one-shot" and steps > 1)
    drive(net, method, batches(1, seed=1), first=steps - 1)
    assert method.over
    assert len(method.history) == rounds_needed(anatomy, schedule, "pieces=50%")


def test_what_is_needed_can_be_known_without_weights() -> None:
    with torch.device("meta"):
        net = build("resnet20", width=0.5)
    anatomy = inspect(net, torch.zeros(2, 3, 32, 32, device="meta"))
    assert steps_needed(anatomy, "iterative:10/5", "pieces=50%", keep=["linear"]) % 5 == 0
    assert rounds_needed(anatomy, "ramp:20/100", "macs=50%") == 20


@pytest.mark.parametrize(
    "by", ["taylor_weight", pytest.param("taylor_gate", marks=pytest.mark.slow)]
)
def test_two_processes_decide_the_same(tmp_path: Path, by: str) -> None:
    to_the_end([*TWO[:-1], "tests.methods.run"], tmp_path, by, "iterative:6/3")
    first, second = ((tmp_path / f"told-{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    told = json.loads(first)
    assert told["rounds"] > 1
    written = load_plan(tmp_path / "plan.json")
    assert {n: list(k) for n, k in written.keep.items()} == told["keep"]
    assert tonsor.load(tmp_path / "slim.tonsor", residual()[0])


@pytest.mark.slow
def test_a_trained_network_is_pruned_on_real_images(data_dir: Path, tmp_path: Path) -> None:
    data = split(open_data(str(data_dir / "cifar10")), validation=200, limit=1500)
    splits = replace(data, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    net = load("resnet20", data_dir / "weights" / "cifar10_resnet20.safetensors").train()
    anatomy = inspect(net, torch.zeros(2, 3, 32, 32))
    recipe = Recipe(epochs=2, batch=64, lr=0.01, weight_decay=1e-4, choose="last")
    slim, result, plan = prune_while_training(
        net, anatomy, splits, recipe, schedule="ramp:10/4", by="l1", rank="normalised",
        budget="macs=60%", recalibrate=10, folder=tmp_path, **QUIET,
    )  # fmt: skip
    assert result.final.accuracy > 0.7
    assert plan.made_by["rounds"] == 10
    assert inspect(slim, torch.zeros(2, 3, 32, 32)).cost.macs() == plan.made_by["reached"]
    assert plan.made_by["reached"] <= 0.6 * anatomy.cost.macs()
