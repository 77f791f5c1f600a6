from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tonsor
from tests.methods.lfpc.pictures import looks, made
from tests.refusals import said
from tests.train.small import digits, same
from tonsor.errors import CheckpointError, StoppedError, TrainError
from tonsor.methods.lfpc import LearnedCriteria, prune_by_learned_criteria, search_criteria
from tonsor.methods.lfpc.run import parted
from tonsor.plan_json import load_plan
from tonsor.train import Batches, Recipe, evaluate
from tonsor.train.data import Memory, Source, Splits

RECIPE = Recipe(epochs=4, batch=20, lr=0.05)
QUIET: dict[str, Any] = {"quiet": True, "board": False, "device": "cpu"}
STEPS = 2 * 5  # two epochs of 100 images


def prune(folder: Path, seed: int = 0, recipe: Recipe = RECIPE, **options: Any) -> Any:
    net, anatomy = made("residual", seed)
    given = {"search_epochs": 2, "budget": "macs=50%", "search": {"lr": 0.1}, **QUIET, **options}
    splits = given.pop("splits", None) or digits()
    slim, result, plan = prune_by_learned_criteria(
        net, anatomy, splits, recipe, folder=folder, **given
    )
    return net, slim, result, plan


def odds_of(folder: Path) -> Any:
    return json.loads((folder / "search" / "search.json").read_text())["moments"]


WAYS: dict[str, dict[str, Any]] = {
    "channels": {},
    "straight, ema": {"search": {"lr": 0.1, "masks": "straight"}, "recipe": RECIPE.but(ema=0.9)},
    "stripes, accumulate": {"family": "stripes", "recipe": RECIPE.but(accumulate=2)},
    "given weights": {"weights": "given", "search": {"lr": 0.1, "train_weights": False}},
    "gradients": {"criteria": ["l1", "taylor_weight"], "share": 0.3},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_is_searched_cut_trained_and_judged(tmp_path: Path, way: str) -> None:
    net, slim, result, plan = prune(tmp_path, **WAYS[way])
    splits = digits()
    batches = Batches(splits.test, size=20, mean=splits.mean, std=splits.std, shuffle=False, seed=0)
    judged = evaluate(slim, batches)
    assert result.final.correct == judged.correct
    assert result.final.loss == pytest.approx(judged.loss, rel=1e-5)
    assert judged.accuracy > 0.2
    assert plan.made_by["met"]
    assert not any("ended after" in note for note in plan.made_by["notes"])
    assert sum(p.numel() for p in slim.parameters()) < sum(p.numel() for p in net.parameters())
    clean, _ = made("residual")
    assert [m[:2] for m in looks(net)[1]] == [m[:2] for m in looks(clean)[1]]
    written = load_plan(tmp_path / "search" / "plan.json")
    assert (written.keep, written.fibres) == (plan.keep, plan.fibres)
    assert same(tonsor.load(tmp_path / "slim.tonsor", made("residual", seed=3)[0]), slim)
    told = json.loads((tmp_path / "search" / "search.json").read_text())
    assert told["sites"] == list(plan.made_by["sites"])
    assert told["criteria"] == plan.made_by["criteria"]
    search = plan.made_by["search"]
    assert (tuple(told["rates"]), told["tolerance"]) == (search["rates"], search["tolerance"])
    kept = float(plan.made_by["budget"].partition("=")[2].rstrip("%")) / 100
    assert told["target"] == pytest.approx(kept * plan.made_by["whole"], abs=1)
    assert len(told["moments"]) == plan.made_by["steps"] == (14 if way == "gradients" else STEPS)
    last = told["moments"][-1]
    for i, site in enumerate(plan.made_by["sites"].values()):
        found = torch.tensor(last["criteria"][i]).softmax(0)
        assert site["criteria"] == pytest.approx(found.tolist(), abs=1e-3)
        assert site["criterion"] == told["criteria"][int(found.argmax())]
        assert len(last["rates"][i]) == len(told["rates"])


def test_weights_that_were_given_are_those_that_are_cut(tmp_path: Path) -> None:
    """Training is left out, so that what is cut can be seen."""
    still = RECIPE.but(lr=1e-30, weight_decay=0.0, epochs=1)
    given_net, slim, _, plan = prune(tmp_path, weights="given", recipe=still, recalibrate=0)
    clean = made("residual")[0]
    assert same(given_net, clean)
    for name, kept in plan.keep.items():
        weight = name.partition("[")[0]
        wide, narrow = clean.get_parameter(weight), slim.get_parameter(weight)
        assert len(narrow) == len(kept) < len(wide)
    torch.testing.assert_close(slim.linear.bias, clean.linear.bias)
    other = prune(tmp_path / "b", recipe=still.but(lr=0.05), recalibrate=0)
    assert not same(other[0], clean)


# ---------------------------------------------------------------- what images are for


@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_images_are_for_weights_or_odds_and_for_one_of_both(share: float, seed: int) -> None:
    splits = digits(120)
    weights, odds = parted(splits, share, seed)
    count = round(share * 120)
    assert (len(weights.train), len(odds)) == (120 - count, count)

    def rows(source: Source) -> list[bytes]:
        return [bytes(i) for i in source.take(torch.arange(len(source))).numpy()]

    assert sorted(rows(weights.train) + rows(odds)) == sorted(rows(splits.train))
    assert len(set(rows(splits.train))) == 120  # or one image could be in both
    assert weights.validation is weights.test is splits.validation
    again = parted(splits, share, seed)
    assert rows(again[1]) == rows(odds)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    words = said(TrainError, lambda: parted(digits(60), share, 0))
    assert f"share={share} of 60 training images leaves none" in words


def noise(source: Source) -> Memory:
    """Other images of the same number, all of one class."""
    images = torch.randint(0, 256, (len(source), *source.shape), dtype=torch.uint8)
    return Memory(images, torch.zeros(len(source)).long(), source.classes)


@pytest.mark.parametrize("which", ["validation", "test"])
def test_no_search_looks_at_what_it_is_judged_by(tmp_path: Path, which: str) -> None:
    plans, moments = [], []
    splits = digits()
    changed: Splits = replace(splits, **{which: noise(getattr(splits, which))})
    for name, data in (("a", splits), ("b", changed)):
        net, anatomy = made("residual")
        plan, method = search_criteria(
            net, anatomy, data, RECIPE.but(epochs=2), budget="macs=50%", folder=tmp_path / name,
            search={"lr": 0.1}, **QUIET,
        )  # fmt: skip
        plans.append(plan)
        moments.append(method.history)
    assert plans[0] == plans[1]
    assert moments[0] == moments[1]


# ---------------------------------------------------------------- going on


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C after a step of the search."""
    real = LearnedCriteria.after_step

    def stop(self: Any, step: int) -> None:
        real(self, step)
        if step == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LearnedCriteria, "after_step", stop)


def stopping_later(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Press Ctrl-C after a step of the training that follows the search."""
    from tonsor.train.method import NoMethod

    def stop(self: Any, step: int) -> None:
        if step == after:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(NoMethod, "after_step", stop)


def assert_same(whole: Any, again: Any) -> None:
    assert same(whole[0], again[0])
    assert same(whole[1], again[1])
    assert whole[3] == again[3]
    assert torch.equal(whole[2].losses, again[2].losses)


@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_and_going_on_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    whole = prune(tmp_path / "a", **WAYS[way])
    for act, after in ((stopping, 6), (stopping_later, 3)):
        act(monkeypatch, after)
        with pytest.raises(StoppedError):
            prune(tmp_path / "b", resume=after == 3, **WAYS[way])
        monkeypatch.undo()
    again = prune(tmp_path / "b", resume=True, **WAYS[way])
    assert_same(whole, again)
    assert odds_of(tmp_path / "a") == odds_of(tmp_path / "b")


@pytest.mark.parametrize("weights", ["searched", "given"])
def test_the_same_model_goes_on_after_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    options: dict[str, Any] = {"budget": "macs=50%", "search_epochs": 2, "weights": weights,
                               "search": {"lr": 0.1}, **QUIET}  # fmt: skip
    whole = prune(tmp_path / "a", **options)
    net, anatomy = made("residual")
    before = looks(net)
    for act, after in ((stopping, 6), (stopping_later, 3)):
        act(monkeypatch, after)
        with pytest.raises(StoppedError):
            prune_by_learned_criteria(
                net, anatomy, digits(), RECIPE, folder=tmp_path / "b", resume=after == 3, **options
            )
        monkeypatch.undo()
        assert looks(net) == before  # it is not masked any more
    slim, result, plan = prune_by_learned_criteria(
        net, anatomy, digits(), RECIPE, folder=tmp_path / "b", resume=True, **options
    )
    assert_same(whole, (net, slim, result, plan))


def test_a_run_of_other_settings_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, 2)
    with pytest.raises(StoppedError):
        prune(tmp_path)
    monkeypatch.undo()
    words = said(CheckpointError, lambda: prune(tmp_path, resume=True, budget="macs=40%"))
    assert "begun with budget=" in words
    said(CheckpointError, lambda: prune(tmp_path, resume=True, criteria=["l1"]))
    words = said(CheckpointError, lambda: prune(tmp_path, resume=True, search_epochs=1))
    assert "epochs was 2, now it is 1" in words


def test_a_last_minibatch_of_one_image_is_left_out_of_the_count(tmp_path: Path) -> None:
    net, anatomy = made("residual")
    plan, method = search_criteria(
        net, anatomy, digits(82), RECIPE.but(epochs=1), budget="macs=50%", folder=tmp_path, **QUIET
    )
    assert plan.made_by["steps"] == method.sampler.done == 2  # of 41 images, 20 at a time
    assert method.over
