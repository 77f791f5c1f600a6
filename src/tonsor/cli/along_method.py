"""Training by a method that learns what goes, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tonsor.anatomy import inspect
from tonsor.api import Report
from tonsor.cli.along_lfpc import by_learned_criteria
from tonsor.cli.choose_options import Prune, Spp
from tonsor.cli.chosen import parts_going
from tonsor.cli.family import every, family_of
from tonsor.cli.given import fields_set, read_recipe_named
from tonsor.cli.made import Made
from tonsor.cli.show import show, step
from tonsor.methods.lfpc.run import prune_by_learned_criteria
from tonsor.methods.spp.run import prune_by_chance_while_training
from tonsor.methods.swp.run import prune_stripes_while_training
from tonsor.plans import Plan
from tonsor.train.data import Splits
from tonsor.train.evaluate import Evaluation
from tonsor.train.recipe import Recipe
from tonsor.train.recipes import RECIPES
from tonsor.train.result import Result

_BY: dict[str, Callable[..., tuple[nn.Module, Result, Plan]]] = {
    "spp": prune_by_chance_while_training, "lfpc": prune_by_learned_criteria,
}  # fmt: skip
_TRAINED = Recipe(
    name="stripes", epochs=40, batch=64, lr=0.01, nesterov=True, weight_decay=1e-4,
    schedule="cosine", choose="last",
)  # fmt: skip


def train_by_method(
    command: Prune, made: Made, splits: Splits, budget: str | None, after: Plan | None
) -> tuple[nn.Module, Report, Evaluation]:
    """Train by a recipe with a method that learns what goes, and cut that at the end."""
    method, along = command.method, command.along
    with step("tracing, and trying cuts on shapes"):
        anatomy = inspect(made.model, made.inputs, head_dims=command.source.head_dims)
    recipe = _recipe(command, random=made.random)
    if method == "lfpc":
        options = by_learned_criteria(command, splits)
    elif method == "spp":
        options = _by_chance(command)
    else:
        options = _of_stripes(command, random=made.random)
    options |= {
        "budget": budget, "keep": command.keep, "after": after, "folder": along.run,
        "resume": along.resume, "verify": False, "device": along.device, "quiet": along.quiet,
        "board": False,
    }  # fmt: skip
    slim, result, decided = _BY.get(str(method), prune_stripes_while_training)(
        made.model, anatomy, splits, recipe, **options
    )
    for model in (made.model, slim):  # where they are proven and measured
        model.cpu()
    proof = None
    if command.verify:
        # By lfpc the slim model has been trained since, so what is proven is the cut, made again.
        cut = decided.apply(made.model, verify=False) if method == "lfpc" else slim
        proof = decided.prove(made.model, cut)
    if not command.json:
        show(_told(command, made, recipe, options, decided))
        show(f"test, once, after the cut: {result.final}")
    return slim, Report(decided, anatomy, proof), result.final


def _told(
    command: Prune, made: Made, recipe: Recipe, options: dict[str, Any], decided: Plan
) -> str:
    """Say how it was trained."""
    method = command.method
    if method == "lfpc":
        searched = command.lfpc.search_epochs or recipe.epochs
        return (
            f"searched by lfpc for {searched} epoch(s), {decided.made_by['steps']:,} steps; then "
            f"trained for {recipe.epochs} epoch(s)"
        )
    begun = f", the skeleton from {options['start']}" if "start" in options else ""
    why = ", for the weights were " + ("random" if made.random else "given")
    why = why if begun and command.swp.start is None else ""
    if method == "spp":
        begun = f", with new chances each {decided.made_by['interval']} minibatch(es)"
    return f"trained by {method} for {recipe.epochs} epoch(s){begun}{why}"


def _of_stripes(command: Prune, *, random: bool) -> dict[str, Any]:
    """The options of swp and lasso; what is not said is left to them."""
    swp = command.swp
    found: dict[str, Any] = {
        "method": command.method, "revival": swp.revival, "stripe_group": command.stripe_group,
    }  # fmt: skip
    said = {
        "alpha": command.alpha, "threshold": command.threshold, "floor": command.floor,
        "ramp": swp.ramp, "every": swp.every,
    }  # fmt: skip
    found |= {name: value for name, value in said.items() if value is not None}
    if command.method == "swp":
        found["start"] = swp.start or ("ones" if random else "norms")
        found["skeleton_only"] = swp.skeleton_only
    return found


def _by_chance(command: Prune) -> dict[str, Any]:
    """The options of spp; what is not said is left to it."""
    found = {name: getattr(command.spp, name) for name in every(Spp)}
    found |= {"family": family_of(command), "seed": command.source.seed}
    said = {
        "alpha": command.alpha, "by": command.ranking.by, "ratio": parts_going(command.ratio)
    }  # fmt: skip
    return found | {name: value for name, value in said.items() if value is not None}


def _recipe(command: Prune, *, random: bool) -> Recipe:
    """The recipe that is named; if none is, that of SWP for networks that are not trained."""
    along, stripes = command.along, command.method not in _BY
    usual = _TRAINED if stripes else _TRAINED.but(name=str(command.method))
    usual = usual.but(lr=0.1) if random else usual
    changes = {
        "epochs": along.epochs, "lr": along.lr, "seed": command.source.seed, **fields_set(along.set)
    }  # fmt: skip
    if random and stripes and "epochs" not in {n for n, v in changes.items() if v is not None}:
        usual = RECIPES["swp-train"]
    return read_recipe_named(along.recipe, usual, changes)
