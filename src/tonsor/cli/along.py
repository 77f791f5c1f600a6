"""Pruning while training, from the command line."""

from __future__ import annotations

import math

from torch import nn

from tonsor.anatomy import inspect
from tonsor.api import Report
from tonsor.cli.choose_options import Along, Prune
from tonsor.cli.chosen import choices
from tonsor.cli.chosen_blocks import batches_seen
from tonsor.cli.given import fields_set, read_recipe_named, shown_to_criteria
from tonsor.cli.made import Made
from tonsor.cli.show import show, step
from tonsor.criteria.scores import Scores
from tonsor.errors import TrainError
from tonsor.methods.needed import steps_needed
from tonsor.methods.run import prune_while_training
from tonsor.select.schedule import Schedule
from tonsor.train.data import Splits
from tonsor.train.evaluate import Evaluation
from tonsor.train.recipe import Recipe

_ALONG = Recipe(
    name="prune", epochs=1, lr=0.01, nesterov=True, schedule="cosine", choose="last",
)  # fmt: skip


def prune_along(
    command: Prune,
    made: Made,
    splits: Splits,
    budget: str | None,
    schedule: Schedule,
    scores: str | Scores,
) -> tuple[nn.Module, Report, Evaluation]:
    """Train by a recipe, prune meanwhile by the schedule, and cut at the end."""
    with step("tracing, and trying cuts on shapes"):
        anatomy = inspect(made.model, made.inputs, head_dims=command.source.head_dims)
    options = choices(command, scores)
    by, seed = options.pop("by"), options["seed"]
    planned = {n: v for n, v in options.items() if n not in ("combine", "seed")}
    needed = steps_needed(anatomy, schedule, budget, **planned)
    recipe = _recipe(command.along, seed, needed, splits)
    steps = recipe.epochs * math.ceil(len(splits.train) / recipe.batch)
    if steps < needed:
        message = (
            f"the schedule takes about {needed} minibatches to meet the budget, {recipe.epochs} "
            f"epoch(s) have {steps}; give more --epochs, or larger steps in --schedule"
        )
        raise TrainError(message)
    slim, result, decided = prune_while_training(
        made.model, anatomy, splits, recipe, schedule=schedule, budget=budget, by=by,
        folder=command.along.run, resume=command.along.resume,
        batches=shown_to_criteria(splits, command.ranking.score_batch, seed),
        at_most=batches_seen(command.ranking.score_batches, by), verify=False,
        device=command.along.device, quiet=command.along.quiet, board=False, **options,
    )  # fmt: skip
    proof = decided.prove(made.model, slim) if command.verify else None
    if not command.json:
        show(f"trained for {recipe.epochs} epoch(s); test, once, after the cut: {result.final}")
    return slim, Report(decided, anatomy, proof), result.final


def recipe_between(along: Along, seed: int) -> Recipe:
    """The recipe that the command line names, with what it changes in it."""
    changes = {"epochs": along.epochs, "lr": along.lr, "seed": seed, **fields_set(along.set)}
    return read_recipe_named(along.recipe, _ALONG, changes)


def _recipe(along: Along, seed: int, needed: int, splits: Splits) -> Recipe:
    """The recipe; if nothing is said of its length, as the schedule needs and one epoch more."""
    recipe = recipe_between(along, seed)
    if along.recipe is None and along.epochs is None and "epochs" not in fields_set(along.set):
        an_epoch = math.ceil(len(splits.train) / recipe.batch)
        recipe = recipe.but(epochs=math.ceil(needed / an_epoch) + 1)
    return recipe
