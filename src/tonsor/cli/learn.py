"""What `train`, `finetune` and `eval` do with the training part of the library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from tonsor.cli.given import fields_set, read_recipe_named, read_splits, speaks, suited
from tonsor.cli.learn_options import Eval, Finetune, How, Train
from tonsor.cli.model import build, fill, find
from tonsor.cli.show import show, show_json, show_table, step
from tonsor.errors import SelectionError
from tonsor.plans import Plan
from tonsor.train.data import Batches, Splits
from tonsor.train.evaluate import Evaluation, evaluate
from tonsor.train.loop import fit
from tonsor.train.recipes import Recipe
from tonsor.train.result import Result

_TRAIN = Recipe(name="train", epochs=40, nesterov=True, schedule="cosine", warmup=2)
_TUNE = Recipe(name="finetune", epochs=20, lr=0.01, nesterov=True, schedule="cosine")


def learn(command: Train | Finetune | Eval) -> int:
    """Carry out a command and return the exit code."""
    splits = read_splits(command.images)
    match command:
        case Train():
            return _train(command, splits)
        case Finetune():
            return _finetune(command, splits)
        case Eval():
            return _eval(command, splits)


# ---------------------------------------------------------------- commands


def _train(command: Train, splits: Splits) -> int:
    recipe = _recipe(command.how, _TRAIN)
    model, _ = _model(command.model, command.network.args, splits, recipe.seed, command.weights)
    result = _fit(model, splits, recipe, command.how)
    return _show(result, command.how.out / "model.safetensors", json_too=command.json)


def _finetune(command: Finetune, splits: Splits) -> int:
    recipe = _recipe(command.how, _TUNE)
    args, seed = command.network.args, recipe.seed
    model, plan = _model(command.model, args, splits, seed, command.weights)
    teacher = None
    if command.teacher is not None:
        teacher, cut = _model(command.model, args, splits, seed, command.teacher)
        if cut is not None:
            message = f"'{command.teacher}' is slim; a teacher is the unpruned model"
            raise SelectionError(message)
        recipe = recipe if recipe.distill else recipe.but(distill=0.5)
    result = _fit(model, splits, recipe, command.how, teacher=teacher, plan=plan)
    out = command.how.out / ("slim.tonsor" if plan is not None else "model.safetensors")
    return _show(result, out, json_too=command.json)


def _eval(command: Eval, splits: Splits) -> int:
    model, _ = _model(command.model, command.network.args, splits, 0, command.weights)
    batches = Batches(
        getattr(splits, command.on), size=command.batch, mean=splits.mean, std=splits.std,
        shuffle=False, seed=0, device=command.device,
    )  # fmt: skip
    with step(f"judging {batches.count} images"):
        found = evaluate(model.to(command.device), batches)
    if command.json:
        show_json({"split": command.on, **_numbers(found)})
    else:
        show(f"{command.on}: {found}, loss {found.loss:.4f}")
    return 0


# ---------------------------------------------------------------- what they share


def _model(
    spec: str, args: str, splits: Splits, seed: int, weights: Path | None
) -> tuple[nn.Module, Plan | None]:
    """Make a model and read its weights; one of the zoo is made to suit the data."""
    with step(f"making {spec}"):
        model = build(find(spec), spec, suited(spec, args, splits), seed)
    if weights is None:
        return model.train(), None
    with step(f"loading {weights}"):
        model, plan = fill(model, str(weights), spec)
    return model.train(), plan


def _recipe(how: How, usual: Recipe) -> Recipe:
    """Take the recipe that is named, and change in it what the command line says."""
    changes = {n: getattr(how, n) for n in ("epochs", "batch", "lr", "seed")}
    return read_recipe_named(how.recipe, usual, changes | fields_set(how.set))


def _fit(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    how: How,
    *,
    teacher: nn.Module | None = None,
    plan: Plan | None = None,
) -> Result:
    return fit(
        model, splits, recipe, folder=how.out, resume=how.resume, teacher=teacher, plan=plan,
        device=how.device, board=how.board, quiet=how.quiet,
    )  # fmt: skip


def _show(result: Result, out: Path, *, json_too: bool) -> int:
    if not speaks():
        return 0
    if json_too:
        show_json(
            {
                "test": _numbers(result.final),
                "validation": _numbers(result.best),
                "best_epoch": result.best_epoch,
                "chosen_epoch": result.chosen_epoch,
                "epochs": len(result.history),
                "out": str(out),
            }
        )
        return 0
    rows = [
        (f"validation, best: epoch {result.best_epoch}", str(result.best)),
        (f"validation, last: epoch {len(result.history)}", str(result.last)),
        (f"test, once: weights of epoch {result.chosen_epoch}", str(result.final)),
    ]
    show_table(("split", "accuracy ± standard error"), rows)
    for note in result.notes:
        show(f"note: {note}", "yellow")
    show(f"written: {out}, and run.toml and result.json beside it", "green")
    return 0


def _numbers(found: Evaluation) -> dict[str, Any]:
    return asdict(found) | {"accuracy": found.accuracy, "standard_error": found.standard_error}
