from __future__ import annotations

import copy
import json
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.train.small import SHORT, digits, net, same
from tonsor.errors import (
    CheckpointError,
    DivergedError,
    RecipeError,
    StoppedError,
    TrainError,
)
from tonsor.train import (
    Batches,
    Method,
    Recipe,
    evaluate,
    fit,
    open_data,
    read_recipe,
    split,
)  # fmt: skip
from tonsor.train.checkpoint import checkpoints
from tonsor.train.optimizer import make_optimizer, set_rate
from tonsor.train.rng import seeded
from tonsor.train.schedule import rate

QUIET: dict[str, Any] = {"quiet": True, "board": False, "device": "cpu"}


def train(model: nn.Module, folder: Path, recipe: Recipe = SHORT, **options: Any):
    return fit(model, digits(), recipe, folder=folder, **{**QUIET, **options})


# ---------------------------------------------------------------- what a run does


def test_a_run_learns_and_says_what_it_did(tmp_path: Path) -> None:
    model = net()
    recipe = SHORT.but(epochs=8, ema=0.0, steps=())
    result = train(model, tmp_path, recipe)
    splits = digits()
    assert result.final.total == len(splits.test)
    assert result.final.accuracy > 0.6
    assert result.best.accuracy == max(row["accuracy"] for row in result.history)
    assert result.history[result.best_epoch - 1]["accuracy"] == result.best.accuracy
    assert len(result.losses) == 8 * 7
    assert result.losses[-7:].mean() < result.losses[:7].mean()
    batches = Batches(splits.test, size=64, mean=splits.mean, std=splits.std, shuffle=False, seed=0)
    assert evaluate(model, batches).correct == result.final.correct  # it has the chosen weights
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["final"]["correct"] == result.final.correct
    assert read_recipe(tmp_path / "run.toml") == recipe
    about = tomllib.loads((tmp_path / "run.toml").read_text())["run"]
    assert about["images"] == [200, 100, 360]
    assert (tmp_path / "model.safetensors").exists()


def test_the_same_call_gives_the_same_weights(tmp_path: Path) -> None:
    a, b = net(), net()
    before = torch.get_rng_state()
    first = train(a, tmp_path / "a")
    torch.rand(7)
    second = train(b, tmp_path / "b")
    assert same(a, b)
    assert torch.equal(first.losses, second.losses)
    torch.set_rng_state(before)


def test_a_run_leaves_no_trace_on_the_model_or_the_generators(tmp_path: Path) -> None:
    model = net()
    names, state = set(vars(model)), torch.get_rng_state()
    train(model, tmp_path, SHORT.but(precision="bf16"))
    assert set(vars(model)) == names
    assert torch.equal(torch.get_rng_state(), state)
    assert copy.deepcopy(model)(torch.zeros(2, 1, 8, 8)).dtype == torch.float32


def by_hand(model: nn.Module, recipe: Recipe, method: Method | None = None) -> list[float]:
    """The user's own loop, as `tonsor.train.method` shows it."""
    splits = digits()
    batches = Batches(
        splits.train, size=recipe.batch, mean=splits.mean, std=splits.std, shuffle=True,
        seed=recipe.seed, augment=splits.augment if recipe.augment else None,
    )  # fmt: skip
    optimizer = make_optimizer(model, recipe)
    losses, step = [], 0
    with seeded(recipe.seed, torch.device("cpu")):
        for epoch in range(recipe.epochs):
            model.train()
            for images, labels in batches.epoch(epoch):
                set_rate(optimizer, rate(recipe, step, len(batches)))
                loss = F.cross_entropy(model(images), labels)
                penalty = None if method is None else method.penalty(model)
                loss = loss if penalty is None else loss + penalty
                loss.backward()
                if method is not None:
                    method.before_step(step)
                optimizer.step()
                optimizer.zero_grad()
                if method is not None:
                    method.after_step(step)
                losses.append(float(loss.detach()))
                step += 1
    return losses


PLAIN = Recipe(epochs=3, batch=32, lr=0.05, choose="last")


def test_the_loop_is_the_plain_one(tmp_path: Path) -> None:
    ours, theirs = net(), net()
    result = train(ours, tmp_path, PLAIN)
    losses = by_hand(theirs, PLAIN)
    assert result.losses.tolist() == pytest.approx(losses, rel=1e-7)
    assert same(ours, theirs)


class Slim(Method):
    """L1 on the scales of BatchNorm (Liu et al., 2017), growing; small ones are zeroed for good."""

    def __init__(self, model: nn.Module, strength: float = 0.02, small: float = 0.5) -> None:
        self.norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        self.strength, self.small = strength, small
        self.alive = [torch.ones_like(n.weight, dtype=torch.bool) for n in self.norms]
        self.steps = 0

    def penalty(self, model: nn.Module) -> Tensor | None:
        if not self.norms:
            return None
        grown = self.strength * (1 + self.steps / 10)
        return grown * torch.stack([n.weight.abs().sum() for n in self.norms]).sum()

    def before_step(self, step: int) -> None:
        for norm, alive in zip(self.norms, self.alive, strict=True):
            assert norm.weight.grad is not None
            norm.weight.grad *= alive
            norm.bias.grad = None  # the offsets stay

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.steps += 1
        for norm, alive in zip(self.norms, self.alive, strict=True):
            alive &= norm.weight.abs() > self.small
            norm.weight.mul_(alive)

    def state_dict(self) -> dict[str, Any]:
        return {"alive": self.alive, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.alive = [a.clone() for a in state["alive"]]
        self.steps = state["steps"]


def test_a_method_works_the_same_in_the_loop_and_without_it(tmp_path: Path) -> None:
    ours, theirs, without = net(), net(), net()
    method, other = Slim(ours), Slim(theirs)
    train(ours, tmp_path / "a", PLAIN, method=method)
    by_hand(theirs, PLAIN, other)
    train(without, tmp_path / "b", PLAIN)
    assert same(ours, theirs)
    assert method.steps == other.steps == 21
    assert 0 < int(method.alive[0].sum()) < 8
    assert torch.equal(torch.ne(ours.get_parameter("norm.weight"), 0), method.alive[0])
    assert not same(ours, without)
    assert not ours.get_parameter("norm.bias").any()


def test_a_method_goes_on_after_a_stop(tmp_path: Path) -> None:
    whole, broken = net(), net()
    train(whole, tmp_path / "a", method=Slim(whole))
    with pytest.raises(StoppedError):
        train(broken, tmp_path / "b", method=Interrupting(Slim(broken), 10))
    broken = net(seed=5)
    method = Interrupting(Slim(broken), -1)
    train(broken, tmp_path / "b", method=method, resume=True)
    assert same(whole, broken)


def test_a_method_ends_in_the_state_of_the_chosen_epoch(tmp_path: Path) -> None:
    model = net(norm=False)
    method = Slim(model)
    recipe = Recipe(epochs=3, batch=32, lr=1e-12)  # so the first epoch stays the best
    assert train(model, tmp_path, recipe, method=method).chosen_epoch == 1
    assert method.steps == 7


class Interrupting(Method):
    """Another method, and Ctrl-C in one step."""

    def __init__(self, inner: Method, step: int) -> None:
        self.inner, self.step = inner, step
        self.penalty, self.before_step = inner.penalty, inner.before_step
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict

    def after_step(self, step: int) -> None:
        self.inner.after_step(step)
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Nothing(Method):
    pass


@pytest.mark.parametrize("step", [0, 3, 6, 7, 19])  # 6 is the last of the first epoch
def test_ctrl_c_ends_with_a_checkpoint_and_the_run_goes_on(tmp_path: Path, step: int) -> None:
    whole, broken = net(), net()
    recipe = SHORT.but(recalibrate=2)
    a = train(whole, tmp_path / "a", recipe, method=Interrupting(Nothing(), -1))
    with pytest.raises(StoppedError) as error:
        train(broken, tmp_path / "b", recipe, method=Interrupting(Nothing(), step))
    assert f"stopped after step {step + 1}," in str(error.value)
    assert "resume=True" in str(error.value)
    broken = net(seed=9)
    b = train(broken, tmp_path / "b", recipe, method=Interrupting(Nothing(), -1), resume=True)
    assert same(whole, broken)
    assert torch.equal(a.losses, b.losses)
    assert a.final == b.final


def test_a_finished_run_is_only_looked_at_again(tmp_path: Path) -> None:
    a, b = net(), net(seed=3)
    first = train(a, tmp_path)
    second = train(b, tmp_path, resume=True)
    assert same(a, b)
    assert first.final == second.final
    assert len(second.losses) == len(first.losses)


def test_another_number_of_threads_is_said(tmp_path: Path) -> None:
    train(net(), tmp_path, SHORT.but(epochs=1))
    threads = torch.get_num_threads()
    again = train(net(), tmp_path, SHORT.but(epochs=1), resume=True)
    assert not any("threads" in note for note in again.notes)
    torch.set_num_threads(threads + 1)
    try:
        other = train(net(), tmp_path, SHORT.but(epochs=1), resume=True)
    finally:
        torch.set_num_threads(threads)
    assert any(f"{threads} threads and goes on with {threads + 1}" in n for n in other.notes)


def test_resume_where_nothing_is_begins(tmp_path: Path) -> None:
    result = train(net(), tmp_path, resume=True)
    assert any("begins at its first step" in note for note in result.notes)


# ---------------------------------------------------------------- what recipes ask for


def test_parts_give_the_gradients_of_the_whole(tmp_path: Path) -> None:
    whole, parts = net(norm=False, dropout=0), net(norm=False, dropout=0)
    a = train(whole, tmp_path / "a", PLAIN)
    b = train(parts, tmp_path / "b", PLAIN.but(accumulate=3))
    torch.testing.assert_close(a.losses, b.losses)
    torch.testing.assert_close(whole.state_dict(), parts.state_dict())


def test_channels_last_gives_the_same_curve(tmp_path: Path) -> None:
    a = train(net(dropout=0), tmp_path / "a", PLAIN)
    b = train(net(dropout=0), tmp_path / "b", PLAIN.but(channels_last=True))
    torch.testing.assert_close(a.losses, b.losses, rtol=1e-4, atol=1e-5)


def test_bf16_is_near_and_not_equal(tmp_path: Path) -> None:
    a = train(net(dropout=0), tmp_path / "a", PLAIN)
    b = train(net(dropout=0), tmp_path / "b", PLAIN.but(precision="bf16"))
    torch.testing.assert_close(a.losses, b.losses, rtol=0.1, atol=0.1)
    assert not torch.equal(a.losses, b.losses)


def test_a_teacher_is_listened_to_and_left_alone(tmp_path: Path) -> None:
    teacher = net(seed=1).train()
    before = copy.deepcopy(teacher)
    recipe = PLAIN.but(distill=0.9)
    a = train(net(), tmp_path / "a", recipe, teacher=teacher)
    b = train(net(), tmp_path / "b", PLAIN)
    assert not torch.equal(a.losses, b.losses)
    assert same(teacher, before)
    assert teacher.training


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_other_optimizers_go_on_too(tmp_path: Path, optimizer: str) -> None:
    recipe = SHORT.but(optimizer=optimizer, lr=1e-3, clip=1.0, schedule="cosine", steps=())
    whole, broken = net(), net()
    train(whole, tmp_path / "a", recipe, method=Interrupting(Nothing(), -1))
    with pytest.raises(StoppedError):
        train(broken, tmp_path / "b", recipe, method=Interrupting(Nothing(), 9))
    train(broken, tmp_path / "b", recipe, method=Interrupting(Nothing(), -1), resume=True)
    assert same(whole, broken)


def test_patience_ends_a_run_that_stands_still(tmp_path: Path) -> None:
    recipe = Recipe(epochs=50, batch=64, lr=1e-12, patience=3)
    result = train(net(), tmp_path, recipe)
    assert len(result.history) == 4 + result.best_epoch - 1
    assert any("no better for 3 epochs" in note for note in result.notes)


def test_the_last_weights_can_be_chosen(tmp_path: Path) -> None:
    result = train(net(norm=False), tmp_path, PLAIN.but(epochs=4, lr=1e-12))
    assert (result.best_epoch, result.chosen_epoch) == (1, 4)


def test_a_plan_makes_a_slim_file(tmp_path: Path) -> None:
    original = net()
    slim, report = tonsor.prune(original, torch.randn(2, 1, 8, 8), budget="params=60%")
    train(slim, tmp_path, plan=report.plan)
    back = tonsor.load(tmp_path / "slim.tonsor", net(seed=4))
    assert same(back, slim)


def test_charts_are_written(tmp_path: Path) -> None:
    train(net(), tmp_path, board=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_progress_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(net(), tmp_path, quiet=False)
    said = capsys.readouterr().err
    assert "validation" in said
    assert "images/s" in said


# ---------------------------------------------------------------- what goes wrong


def test_a_used_folder_is_not_written_over(tmp_path: Path) -> None:
    train(net(), tmp_path)
    with pytest.raises(CheckpointError, match="holds a run already"):
        train(net(), tmp_path)


def test_another_recipe_is_refused_by_its_fields(tmp_path: Path) -> None:
    train(net(), tmp_path)
    with pytest.raises(CheckpointError) as error:
        train(net(), tmp_path, SHORT.but(lr=0.01, seed=3), resume=True)
    assert "another recipe" in str(error.value)
    assert "lr was 0.05, now it is 0.01" in str(error.value)
    assert "seed was 0, now it is 3" in str(error.value)
    assert "epochs" not in str(error.value)


def test_another_model_is_refused_by_its_tensors(tmp_path: Path) -> None:
    train(net(), tmp_path)
    other = net()
    other.linear = nn.Linear(128, 11)
    with pytest.raises(CheckpointError, match=r"linear.weight was '\(10, 128\)', now .*11"):
        train(other, tmp_path, resume=True)


def test_other_data_and_another_teacher_are_refused(tmp_path: Path) -> None:
    recipe = SHORT.but(distill=0.5)
    train(net(), tmp_path, recipe, teacher=net(seed=1))
    with pytest.raises(CheckpointError, match="another teacher"):
        train(net(), tmp_path, recipe, teacher=net(seed=2), resume=True)
    with pytest.raises(CheckpointError, match="another data"):
        fit(net(), digits(150), recipe, folder=tmp_path, teacher=net(seed=1), resume=True, **QUIET)


class Poison(Method):
    def __init__(self, model: nn.Module, step: int, weights: bool) -> None:
        self.model, self.step, self.weights = model, step, weights

    def penalty(self, model: nn.Module) -> Tensor | None:
        return None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if step == self.step:
            next(self.model.parameters())[0] = float("nan")


@pytest.mark.parametrize(("at", "shows", "kept"), [(9, 11, 8), (6, 7, 4), (13, 14, 12)])
def test_a_loss_that_is_no_number_ends_the_run(
    tmp_path: Path, at: int, shows: int, kept: int
) -> None:
    model = net()
    with pytest.raises(DivergedError) as error:
        train(model, tmp_path, method=Poison(model, at, True), save_every=4)
    assert error.value.step == shows
    assert f"in step {shows}" in str(error.value)
    newest = checkpoints(tmp_path)[-1]
    assert newest.name == f"checkpoint-{kept:09d}.safetensors"
    assert newest.name in str(error.value)


def test_a_rate_that_is_too_high_is_told(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="often helps"):
        train(net(norm=False), tmp_path, PLAIN.but(lr=1e30))


def test_a_full_disk_ends_the_run_and_the_last_checkpoint_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tonsor.train import checkpoint

    whole, broken = net(), net()
    train(whole, tmp_path / "a")
    real, calls = checkpoint.save_file, []

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        real(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(broken, tmp_path / "b")
    assert len(checkpoints(tmp_path / "b")) == 1
    monkeypatch.undo()
    train(broken, tmp_path / "b", resume=True)
    assert same(whole, broken)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path: Path) -> None:
    whole, broken = net(), net()
    train(whole, tmp_path / "a")
    train(broken, tmp_path / "b")
    newest = checkpoints(tmp_path / "b")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    again = net(seed=2)
    result = train(again, tmp_path / "b", resume=True)
    assert same(whole, again)
    assert any("damaged" in note for note in result.notes)


@pytest.mark.parametrize("where", ["file", "file/inside"])
def test_a_folder_that_can_not_be_written_is_told(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't write into the folder"):
        train(net(), tmp_path / where)


@pytest.mark.parametrize(
    ("change", "options", "error", "said"),
    [
        ({"distill": 0.5}, {}, RecipeError, "needs a teacher"),
        ({}, {"teacher": nn.Linear(1, 1)}, RecipeError, "does not listen"),
        ({"precision": "fp16"}, {}, TrainError, "needs an accelerator"),
        ({}, {"save_every": 0}, TrainError, "at least 1"),
        ({}, {"device": "tpu"}, TrainError, "was asked for"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, change: dict, options: dict, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        train(net(), tmp_path, SHORT.but(**change), **options)


def test_a_model_of_too_few_classes_is_refused_at_its_first_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(TrainError, match="9 classes apart, the data has 10"):
        fit(model, digits(), SHORT, folder=tmp_path, **QUIET)


def test_a_single_image_that_is_left_over_is_left_out(tmp_path: Path) -> None:
    class Flat(nn.Sequential):
        """BatchNorm of vectors, for which one image is too few."""

    model = Flat(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))
    result = fit(model, digits(65), PLAIN.but(epochs=1), folder=tmp_path, **QUIET)
    assert len(result.losses) == 2


def test_without_a_validation_split_the_last_weights_are_taken(tmp_path: Path) -> None:
    splits = split(open_data("digits"), validation=0, limit=100)
    result = fit(net(), splits, SHORT.but(patience=1), folder=tmp_path, **QUIET)
    assert result.chosen_epoch == 3
    assert any("no validation split" in note for note in result.notes)
    assert json.loads((tmp_path / "result.json").read_text())["best"]["loss"] is None


def test_a_launcher_that_accumulates_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(TrainError, match=r"say recipe\.accumulate instead"):
        train(net(), tmp_path)
