from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tests.methods.swp.nets import made
from tests.refusals import said
from tests.train.small import digits, same
from tests.train.test_processes import TWO, to_the_end
from tonsor.errors import CheckpointError, SelectionError, StoppedError
from tonsor.methods.swp import FilterSkeleton, StripeLasso, prune_stripes_while_training
from tonsor.methods.swp.run import stripe_method
from tonsor.plan_json import load_plan
from tonsor.train import Batches, Recipe, evaluate

RECIPE = Recipe(epochs=3, batch=32, lr=0.05)
QUIET: dict[str, Any] = {"quiet": True, "board": False, "device": "cpu"}


def prune(folder: Path, seed: int = 0, recipe: Recipe = RECIPE, **options: Any) -> Any:
    net, anatomy = made("residual", seed)
    given = {"budget": "macs=50%", "every": 3, **QUIET, **options}
    slim, result, plan = prune_stripes_while_training(
        net, anatomy, digits(), recipe, folder=folder, **given
    )
    return net, slim, result, plan


def judged_by() -> Batches:
    splits = digits()
    return Batches(splits.test, size=32, mean=splits.mean, std=splits.std, shuffle=False, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "lasso", "relative": True},
        {"start": "norms", "recipe": RECIPE.but(ema=0.9)},
        {"budget": None, "threshold": 0.3, "alpha": 0.1, "recipe": RECIPE.but(accumulate=2)},
        {"skeleton_only": True, "recalibrate": 3},
    ],
    ids=["swp", "lasso", "norms and ema", "threshold and accumulate", "skeletons alone"],
)
def test_a_model_is_trained_cut_and_judged(tmp_path: Path, options: dict[str, Any]) -> None:
    net, slim, result, plan = prune(tmp_path, **options)
    judged = evaluate(slim, judged_by())
    assert result.final == judged
    assert result.final.accuracy > 0.15
    assert plan.stripes
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    if options.get("budget", "") is not None:
        assert plan.made_by["reached"] <= plan.made_by["limit"]
        assert plan.made_by["ramp"] == 13  # six tenths of 21 steps
    if "recalibrate" not in options:  # what was trained is what is cut
        assert evaluate(net, judged_by()).correct == judged.correct
        x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
        left, right = plan.apply(net.eval()).double()(x), net.double()(x)
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    assert result.chosen_epoch == 3
    assert list(net.state_dict()) == list(made("residual")[0].state_dict())
    assert all(p.requires_grad for p in net.parameters())
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["final"]["correct"] == judged.correct
    assert {p.name for p in tmp_path.iterdir()} >= {
        "run.toml", "result.json", "plan.json", "slim.tonsor",
    }  # fmt: skip
    written = load_plan(tmp_path / "plan.json")
    assert (written.keep, written.stripes) == (plan.keep, plan.stripes)
    back = tonsor.load(tmp_path / "slim.tonsor", made("residual", seed=3)[0])
    assert same(back, slim)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("swp", {}),
        ("swp", {"recipe": RECIPE.but(ema=0.9), "start": "norms"}),
        ("swp", {"recipe": RECIPE.but(accumulate=2), "budget": None, "threshold": 0.4,
                 "alpha": 0.2}),
        ("swp", {"skeleton_only": True}),
        ("lasso", {"recipe": RECIPE.but(ema=0.9, accumulate=2)}),
    ],
)  # fmt: skip
def test_ctrl_c_and_going_on_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, options: dict[str, Any]
) -> None:
    whole = prune(tmp_path / "a", method=method, **options)
    kind: Any = StripeLasso if method == "lasso" else FilterSkeleton
    real = kind.after_step

    def stopping(self: Any, step: int) -> None:
        real(self, step)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kind, "after_step", stopping)
    with pytest.raises(StoppedError, match="after step 6"):
        prune(tmp_path / "b", method=method, **options)
    monkeypatch.undo()
    again = prune(tmp_path / "b", seed=5, method=method, resume=True, **options)
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])
    assert whole[3] == again[3]
    assert torch.equal(whole[2].losses, again[2].losses)


def test_the_same_model_goes_on_after_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prune(tmp_path / "a")
    net, anatomy = made("residual")
    given: dict[str, Any] = {"budget": "macs=50%", "every": 3, **QUIET}
    real = FilterSkeleton.after_step

    def stopping(self: Any, step: int) -> None:
        real(self, step)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FilterSkeleton, "after_step", stopping)
    with pytest.raises(StoppedError):
        prune_stripes_while_training(net, anatomy, digits(), RECIPE, folder=tmp_path / "b", **given)
    monkeypatch.undo()
    assert list(net.state_dict()) == list(whole[0].state_dict())  # it has no skeletons any more
    words = said(
        CheckpointError,
        lambda: prune_stripes_while_training(
            net, anatomy, digits(), RECIPE, folder=tmp_path / "b", **given
        ),
    )
    assert "holds a run already" in words
    slim, _, plan = prune_stripes_while_training(
        net, anatomy, digits(), RECIPE, folder=tmp_path / "b", resume=True, **given
    )
    assert plan == whole[3]
    assert same(slim, whole[1])


def test_a_run_of_other_settings_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FilterSkeleton.after_step

    def stopping(self: Any, step: int) -> None:
        real(self, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(FilterSkeleton, "after_step", stopping)
    with pytest.raises(StoppedError):
        prune(tmp_path)
    monkeypatch.undo()
    words = said(CheckpointError, lambda: prune(tmp_path, resume=True, alpha=0.5))
    assert "begun with alpha='1e-05', now it is '0.5'" in words
    words = said(CheckpointError, lambda: prune(tmp_path, resume=True, method="lasso"))
    assert "FilterSkeleton" in words or "another model" in words


def test_an_end_before_the_ramp_is_in_the_notes(tmp_path: Path) -> None:
    _, slim, result, plan = prune(tmp_path, ramp=1000)
    assert any("are cut at once" in note for note in result.notes)
    assert plan.made_by["reached"] <= plan.made_by["limit"]
    assert result.final == evaluate(slim, judged_by())


def test_a_method_is_found_by_its_name() -> None:
    net, anatomy = made("residual")
    assert isinstance(stripe_method(net, anatomy, "lasso"), StripeLasso)
    assert isinstance(stripe_method(net, anatomy), FilterSkeleton)
    wrong: Any = "slimming"
    words = said(SelectionError, lambda: stripe_method(net, anatomy, wrong))
    assert "method must be one of swp, lasso" in words


def test_two_processes_decide_the_same(tmp_path: Path) -> None:
    to_the_end([*TWO[:-1], "tests.methods.swp.run"], tmp_path, "swp")
    first, second = ((tmp_path / f"told-{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    written = load_plan(tmp_path / "plan.json")
    assert written.stripes
    assert written.made_by["reached"] <= written.made_by["limit"]
    assert tonsor.load(tmp_path / "slim.tonsor", made("residual")[0])
