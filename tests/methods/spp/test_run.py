from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tests.methods.spp.nets import looks, made
from tests.refusals import said
from tests.train.small import digits, same
from tests.train.test_processes import TWO, to_the_end
from tonsor.errors import CheckpointError, StoppedError
from tonsor.methods.spp import ByChance, prune_by_chance_while_training
from tonsor.methods.spp.run import interval_of
from tonsor.plan_json import load_plan
from tonsor.train import Batches, Recipe, evaluate

RECIPE = Recipe(epochs=4, batch=32, lr=0.05)  # 28 steps
QUIET: dict[str, Any] = {"quiet": True, "board": False, "device": "cpu"}


def prune(folder: Path, seed: int = 0, recipe: Recipe = RECIPE, **options: Any) -> Any:
    net, anatomy = made("residual", seed)
    given = {"interval": 1, "most": 0.3, **QUIET, **options}
    if "budget" not in given:
        given.setdefault("ratio", 0.5)
    slim, result, plan = prune_by_chance_while_training(
        net, anatomy, digits(), recipe, folder=folder, **given
    )
    return net, slim, result, plan


def judged_by() -> Batches:
    splits = digits()
    return Batches(splits.test, size=32, mean=splits.mean, std=splits.std, shuffle=False, seed=0)


WAYS: dict[str, dict[str, Any]] = {
    "columns": {},
    "stripes, ema": {"family": "stripes", "recipe": RECIPE.but(ema=0.9)},
    "channels, accumulate": {"family": "channels", "recipe": RECIPE.but(accumulate=2)},
    "elementwise, budget": {"elementwise": True, "budget": "macs=50%"},
    "caffe, history": {"gradient": "caffe", "history": 0.5},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_trained_cut_and_judged(tmp_path: Path, way: str) -> None:
    net, slim, result, plan = prune(tmp_path, **WAYS[way])
    judged = evaluate(slim, judged_by())
    assert result.final == judged
    assert result.final.accuracy > 0.3
    assert evaluate(net, judged_by()).correct == judged.correct  # what was trained is what is cut
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    left, right = plan.apply(net.eval()).double()(x), net.double()(x)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    if "budget" in WAYS[way]:
        assert plan.made_by["met"]
    else:
        for lost, size in plan.made_by["lost"].values():
            assert lost == math.ceil(size / 2)
    assert result.chosen_epoch == 4
    clean, _ = made("residual")
    assert [m[:2] for m in looks(net)[1]] == [m[:2] for m in looks(clean)[1]]
    assert list(net.state_dict()) == list(clean.state_dict())
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["final"]["correct"] == judged.correct
    written = load_plan(tmp_path / "plan.json")
    assert (written.keep, written.fibres) == (plan.keep, plan.fibres)
    assert same(tonsor.load(tmp_path / "slim.tonsor", made("residual", seed=3)[0]), slim)


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_and_going_on_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    whole = prune(tmp_path / "a", **WAYS[way])
    stopping(monkeypatch, 5)
    with pytest.raises(StoppedError, match="after step 6"):
        prune(tmp_path / "b", **WAYS[way])
    monkeypatch.undo()
    again = prune(tmp_path / "b", seed=5, resume=True, **WAYS[way])
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])
    assert whole[3] == again[3]
    assert torch.equal(whole[2].losses, again[2].losses)


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C after a step."""
    real = ByChance.after_step

    def stop(self: Any, step: int) -> None:
        real(self, step)
        if step == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(ByChance, "after_step", stop)


def test_the_same_model_goes_on_after_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prune(tmp_path / "a")
    net, anatomy = made("residual")
    before = looks(net)
    given: dict[str, Any] = {"ratio": 0.5, "interval": 1, "most": 0.3, **QUIET}
    stopping(monkeypatch, 5)
    with pytest.raises(StoppedError):
        prune_by_chance_while_training(
            net, anatomy, digits(), RECIPE, folder=tmp_path / "b", **given
        )
    monkeypatch.undo()
    assert looks(net) == before  # it is not masked any more
    slim, _, plan = prune_by_chance_while_training(
        net, anatomy, digits(), RECIPE, folder=tmp_path / "b", resume=True, **given
    )
    assert plan == whole[3]
    assert same(slim, whole[1])


def test_a_run_of_other_settings_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, 2)
    with pytest.raises(StoppedError):
        prune(tmp_path)
    monkeypatch.undo()
    words = said(CheckpointError, lambda: prune(tmp_path, resume=True, most=0.4))
    assert "begun with most='0.3', now it is '0.4'" in words
    said(CheckpointError, lambda: prune(tmp_path, resume=True, family="channels"))


def test_the_interval_is_that_of_the_paper_unless_the_training_is_short(tmp_path: Path) -> None:
    long, short = Recipe(epochs=100, batch=100), Recipe(epochs=8, batch=16)
    assert interval_of(long, 50_000) == 180
    assert interval_of(short, 5000) == math.floor(0.6 * 8 * 313 / 80) == 18
    assert interval_of(RECIPE, 10) == 1
    _, _, result, plan = prune(tmp_path, interval=None, most=0.05)
    assert plan.made_by["interval"] == 1
    assert any("ended before the pruning did" in n for n in plan.made_by["notes"])
    assert any("ended before the pruning did" in n for n in result.notes)


def test_two_processes_draw_and_decide_the_same(tmp_path: Path) -> None:
    to_the_end([*TWO[:-1], "tests.methods.spp.run"], tmp_path, "spp")
    first, second = ((tmp_path / f"told-{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    written = load_plan(tmp_path / "plan.json")
    assert written.columns
    assert written.made_by["notes"] == []
    assert tonsor.load(tmp_path / "slim.tonsor", made("residual")[0])
