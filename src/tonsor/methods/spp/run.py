"""Train with pieces that go by chance, cut, and judge: in one call."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.methods.run import train_and_cut
from tonsor.methods.spp.spp import ByChance
from tonsor.plans import Plan
from tonsor.train.data import Splits
from tonsor.train.recipe import Recipe
from tonsor.train.result import Result

INTERVAL = 180  # steps between two updates, as in the paper
_UPDATES = 80  # a few more than a pool needs that loses three quarters
_SHARE = 0.6  # of a training, in which pieces go; the rest is for retraining


def interval_of(recipe: Recipe, images: int) -> int:
    """Return the steps between two updates: the paper's, or fewer if the training is short.

    >>> interval_of(Recipe(epochs=12, batch=128), images=10_000)
    7
    """
    steps = recipe.epochs * math.ceil(images / recipe.batch)
    return max(1, min(INTERVAL, math.floor(_SHARE * steps / _UPDATES)))


def prune_by_chance_while_training(
    model: nn.Module,
    anatomy: Anatomy,
    splits: Splits,
    recipe: Recipe,
    *,
    interval: int | None = None,
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
    """Train a model in place by a recipe while pieces of it go by chance, and cut it at the end.

    Returns the slim model, proven equal to what was trained unless `verify=False`, the result, and
    the plan. The `options` are those of `ByChance`. Without `interval` there are the paper's 180
    steps between two updates, or so many fewer that the pruning is done after six tenths of the
    steps. The last weights are taken, whatever `recipe.choose` says: those of an earlier epoch have
    lost less.
    """
    steps = interval_of(recipe, len(splits.train)) if interval is None else interval
    made = ByChance(model, anatomy, interval=steps, **options)
    try:
        return train_and_cut(
            model, made, splits, recipe, folder=folder, resume=resume, teacher=teacher,
            recalibrate=recalibrate, verify=verify, device=device, save_every=save_every,
            log_every=log_every, board=board, quiet=quiet,
        )  # fmt: skip
    finally:
        made.release()  # or a run that was stopped could not go on with the same model
