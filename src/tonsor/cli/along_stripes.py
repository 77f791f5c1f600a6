"""Training stripes away, from the command line."""

from __future__ import annotations

from typing import Any

from torch import nn

from tonsor.anatomy import inspect
from tonsor.api import Report
from tonsor.cli.choose_options import Along, Prune, Striping
from tonsor.cli.given import fields_set, read_recipe_named
from tonsor.cli.made import Made
from tonsor.cli.show import show, step
from tonsor.methods.swp.run import prune_stripes_while_training
from tonsor.plans import Plan
from tonsor.train.data import Splits
from tonsor.train.evaluate import Evaluation
from tonsor.train.recipe import Recipe
from tonsor.train.recipes import RECIPES

_TRAINED = Recipe(
    name="stripes", epochs=40, batch=64, lr=0.01, nesterov=True, weight_decay=1e-4,
    schedule="cosine", choose="last",
)  # fmt: skip


def train_stripes(
    command: Prune, made: Made, splits: Splits, budget: str | None, after: Plan | None
) -> tuple[nn.Module, Report, Evaluation]:
    """Train by a recipe with a method that learns which stripes go, and cut these at the end."""
    method, along = command.striping.method, command.along
    assert method is not None
    with step("tracing, and trying cuts on shapes"):
        anatomy = inspect(made.model, made.inputs)
    recipe = _recipe(along, command.source.seed, random=made.random)
    options = _options(command.striping, random=made.random)
    if command.floor is not None:
        options["floor"] = command.floor
    slim, result, decided = prune_stripes_while_training(
        made.model, anatomy, splits, recipe, method=method, budget=budget, keep=command.keep,
        after=after, folder=along.run, resume=along.resume, verify=False, device=along.device,
        quiet=along.quiet, board=False, **options,
    )  # fmt: skip
    for model in (made.model, slim):  # where they are proven and measured
        model.cpu()
    proof = decided.prove(made.model, slim) if command.verify else None
    if not command.json:
        begun = f", the skeleton from {options['start']}" if "start" in options else ""
        why = ", for the weights were " + ("random" if made.random else "given")
        why = why if begun and command.striping.start is None else ""
        show(f"trained by {method} for {recipe.epochs} epoch(s){begun}{why}")
        show(f"test, once, after the cut: {result.final}")
    return slim, Report(decided, anatomy, proof), result.final


def _options(striping: Striping, *, random: bool) -> dict[str, Any]:
    """The options of the method; what is not said is left to it."""
    found: dict[str, Any] = {"revival": striping.revival}
    for name in ("alpha", "threshold", "ramp", "every"):
        value = getattr(striping, name)
        if value is not None:
            found[name] = value
    if striping.method == "swp":
        found["start"] = striping.start or ("ones" if random else "norms")
        found["skeleton_only"] = striping.skeleton_only
    return found


def _recipe(along: Along, seed: int, *, random: bool) -> Recipe:
    """The recipe that is named; if none is, that of the paper for networks that are not trained."""
    usual = _TRAINED.but(lr=0.1) if random else _TRAINED
    changes = {"epochs": along.epochs, "lr": along.lr, "seed": seed, **fields_set(along.set)}
    if random and "epochs" not in {n for n, v in changes.items() if v is not None}:
        usual = RECIPES["swp-train"]
    return read_recipe_named(along.recipe, usual, changes)
