"""What `train`, `finetune` and `eval` do with the training part of the library."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from tonsor.cli.learn_options import Eval, Finetune, How, Images, Train
from tonsor.cli.model import ZOO_PLACE, build, fill, find
from tonsor.cli.show import show, show_json, show_table, step
from tonsor.errors import DataError, RecipeError, SelectionError
from tonsor.plans import Plan
from tonsor.train.data import Batches, Splits, open_data, split
from tonsor.train.evaluate import Evaluation, evaluate
from tonsor.train.loop import fit
from tonsor.train.recipe_file import read_recipe
from tonsor.train.recipes import RECIPES, Recipe, named
from tonsor.train.result import Result
from tonsor.zoo.registry import entry

_TRAIN = Recipe(name="train", epochs=40, nesterov=True, schedule="cosine", warmup=2)
_TUNE = Recipe(name="finetune", epochs=20, lr=0.01, nesterov=True, schedule="cosine")


def learn(command: Train | Finetune | Eval) -> int:
    """Carry out a command and return the exit code."""
    splits = _splits(command.images)
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


def _splits(images: Images) -> Splits:
    with step(f"opening {images.data}"):
        data = open_data(images.data, strict=images.strict, size=images.size)
        part = images.validation
        splits = split(
            data, validation=part if part < 1 else int(part), seed=images.split_seed,
            limit=images.limit,
        )  # fmt: skip
    for note in data.notes if _speaks() else ():
        show(f"note: {note}", "yellow")
    for name in ("mean", "std"):
        given = getattr(images, name)
        if given is None:
            continue
        if len(given) != splits.shape[0]:
            message = (
                f"--{name} has {len(given)} numbers, the images have {splits.shape[0]} channels"
            )
            raise DataError(message)
        splits = replace(splits, **{name: tuple(given)})
    return splits


def _model(
    spec: str, args: str, splits: Splits, seed: int, weights: Path | None
) -> tuple[nn.Module, Plan | None]:
    """Make a model and read its weights; one of the zoo is made to suit the data."""
    with step(f"making {spec}"):
        model = build(find(spec), spec, _suited(spec, args, splits), seed)
    if weights is None:
        return model.train(), None
    with step(f"loading {weights}"):
        model, plan = fill(model, str(weights), spec)
    return model.train(), plan


def _suited(spec: str, args: str, splits: Splits) -> str:
    place, _, name = spec.rpartition(":")
    if place != ZOO_PLACE:
        return args
    suits = {"classes": len(splits.classes), "channels": splits.shape[0]}
    given = json.loads(args) if args else {}
    known = entry(name).variants
    return json.dumps({k: v for k, v in suits.items() if k in known} | given)


def _recipe(how: How, usual: Recipe) -> Recipe:
    """Take the recipe that is named, and change in it what the command line says."""
    recipe = usual
    if how.recipe is not None:
        is_file = how.recipe not in RECIPES and Path(how.recipe).suffix == ".toml"
        recipe = read_recipe(how.recipe) if is_file else named(how.recipe)
    changes = {n: getattr(how, n) for n in ("epochs", "batch", "lr", "seed")}
    changes = {n: v for n, v in changes.items() if v is not None}
    for item in how.set:
        name, _, text = item.partition("=")
        changes[name.strip()] = _toml(item, text)
    if recipe is usual and "epochs" in changes:  # our own recipe fits itself to its length
        changes.setdefault("warmup", usual.warmup * changes["epochs"] / usual.epochs)
    return recipe.but(**changes)


def _toml(item: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if text.strip().replace("_", "").replace("-", "").isalnum():
            return text.strip()  # a word needs no quotation marks here
        message = f"--set '{item}' is not FIELD=VALUE with a value as in TOML, such as ema=0.999"
        raise RecipeError(message) from None


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
    if not _speaks():
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


def _speaks() -> bool:
    """Whether this is the only process, or the first of those that a launcher has started."""
    return os.environ.get("RANK", "0") == "0"


def _numbers(found: Evaluation) -> dict[str, Any]:
    return asdict(found) | {"accuracy": found.accuracy, "standard_error": found.standard_error}
