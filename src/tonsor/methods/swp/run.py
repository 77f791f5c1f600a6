"""Train with a filter skeleton or a lasso on stripes, cut, and judge: in one call."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.methods.run import train_and_cut
from tonsor.methods.swp.lasso import StripeLasso
from tonsor.methods.swp.swp import FilterSkeleton
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.train.data import Splits
from tonsor.train.recipe import Recipe
from tonsor.train.result import Result

StripeMethod = Literal["swp", "lasso"]
RAMP = 0.6  # the share of a training in which the cost comes down; the rest is for recovering


def stripe_method(
    model: nn.Module, anatomy: Anatomy, method: StripeMethod = "swp", **options: Any
) -> FilterSkeleton | StripeLasso:
    """Return the method of this name: a filter skeleton, or a group lasso on stripes."""
    kinds = {"swp": FilterSkeleton, "lasso": StripeLasso}
    if method not in get_args(StripeMethod):
        message = f"method must be one of {', '.join(kinds)}, got {method!r}"
        raise SelectionError(message)
    return kinds[method](model, anatomy, **options)


def ramp_of(recipe: Recipe, images: int) -> int:
    """Return in how many steps the cost comes down, if nothing else is said."""
    steps = recipe.epochs * math.ceil(images / recipe.batch)
    return max(1, round(RAMP * steps))


def prune_stripes_while_training(
    model: nn.Module,
    anatomy: Anatomy,
    splits: Splits,
    recipe: Recipe,
    *,
    method: StripeMethod = "swp",
    budget: str | Budget | None = None,
    ramp: int | None = None,
    every: int = 50,
    folder: str | Path,
    resume: bool = False,
    teacher: nn.Module | None = None,
    recalibrate: int = 0,
    verify: bool = True,
    device: str | None = None,
    save_every: int = 1000,
    log_every: int = 10,
    board: bool = True,
    quiet: bool = False,
    **options: Any,
) -> tuple[nn.Module, Result, Plan]:
    """Train a model in place by a recipe, with fewer and fewer stripes, and cut it at the end.

    Returns the slim model, proven equal to what was trained unless `verify=False`, the result, and
    the plan. Cutting changes nothing, so `result.final`, which is of the slim model, is what the
    trained one has too, unless `recalibrate` says to take the statistics of BatchNorm anew. The
    other `options` are those of `FilterSkeleton` and `StripeLasso`; without `ramp` a budget is
    reached after six tenths of the steps. The last weights are taken, whatever `recipe.choose`
    says: those of an earlier epoch have lost less.
    """
    ramp = ramp_of(recipe, len(splits.train)) if ramp is None else ramp
    made = stripe_method(
        model,
        anatomy,
        method,
        budget=budget,
        ramp=ramp,
        every=max(1, min(every, ramp // 10)),
        **options,
    )
    try:
        return train_and_cut(
            model, made, splits, recipe, folder=folder, resume=resume, teacher=teacher,
            recalibrate=recalibrate, verify=verify, device=device, save_every=save_every,
            log_every=log_every, board=board, quiet=quiet,
        )  # fmt: skip
    finally:
        if isinstance(made, FilterSkeleton):
            made.release()  # or a run that was stopped could not go on with the same model
