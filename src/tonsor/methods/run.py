"""Train, prune meanwhile by a schedule, cut, and judge: in one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.score import Scores
from tonsor.methods.gradual import Gradual
from tonsor.methods.scoring import TRAINED
from tonsor.methods.soft import Soft
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.schedule import Schedule, parse_schedule
from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches, Source, Splits
from tonsor.train.evaluate import evaluate
from tonsor.train.loop import fit
from tonsor.train.method import Method
from tonsor.train.recipe import Recipe
from tonsor.train.result import Result, write_result


def method_for(
    model: nn.Module, anatomy: Anatomy, *, schedule: str | Schedule, **options: Any
) -> Gradual | Soft:
    """Return the method that a schedule asks for; the options are those of `Gradual`."""
    found = parse_schedule(schedule)
    kind = Soft if found.kind == "soft" else Gradual
    return kind(model, anatomy, schedule=found, **options)


def prune_while_training(
    model: nn.Module,
    anatomy: Anatomy,
    splits: Splits,
    recipe: Recipe,
    *,
    schedule: str | Schedule,
    budget: str | Budget | None = None,
    by: str | Scores = "l2",
    folder: str | Path,
    resume: bool = False,
    teacher: nn.Module | None = None,
    batches: Any = None,
    recalibrate: int = 0,
    verify: bool = True,
    device: str | None = None,
    save_every: int = 1000,
    log_every: int = 10,
    board: bool = True,
    quiet: bool = False,
    **options: Any,
) -> tuple[nn.Module, Result, Plan]:
    """Train a model in place by a recipe, prune it by a schedule meanwhile, and cut it at the end.

    Returns the slim model, proven equal to the masked one unless `verify=False`, the result, and
    the plan. `result.final` is of the slim model, after its BatchNorms have taken their statistics
    anew from so many batches as `recalibrate` says; `folder` has it as `slim.tonsor`. The last
    weights are taken, whatever `recipe.choose` says: those of an earlier epoch have lost less. A
    criterion that has to look at data gets that of the training split, without augmentation,
    unless there are other `batches`. The rest is as in `fit` and `Gradual`.
    """
    if batches is None and _looks_at_batches(by):
        batches = plain_batches(splits.train, splits, recipe, device, shuffle=True)
    method = method_for(
        model, anatomy, schedule=schedule, budget=budget, by=by, batches=batches, **options
    )
    return train_and_cut(
        model, method, splits, recipe, folder=folder, resume=resume, teacher=teacher,
        recalibrate=recalibrate, verify=verify, device=device, save_every=save_every,
        log_every=log_every, board=board, quiet=quiet,
    )  # fmt: skip


def train_and_cut(
    model: nn.Module,
    method: Method,
    splits: Splits,
    recipe: Recipe,
    *,
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
) -> tuple[nn.Module, Result, Plan]:
    """Train a model in place with a method that prunes, and cut what that says at the end.

    What is returned, and what is written, is as `prune_while_training` has it.
    """
    notes: list[str] = []
    if recipe.choose != "last":
        recipe = recipe.but(choose="last")
        notes.append("the last weights are taken, for those of earlier epochs have lost less")
    result = fit(
        model, splits, recipe, folder=folder, resume=resume, teacher=teacher, method=method,
        device=device, save_every=save_every, log_every=log_every, board=board, quiet=quiet,
    )  # fmt: skip
    decided = result.plan
    assert decided is not None
    slim = decided.apply(model, verify=verify)
    where = str(next(model.parameters()).device)
    if recalibrate:
        shown = plain_batches(splits.train, splits, recipe, where, shuffle=True)
        calibrate(slim, shown, recalibrate)
    final = evaluate(slim, plain_batches(splits.test, splits, recipe, where, shuffle=False))
    notes += decided.made_by.get("notes", ())
    result = replace(result, final=final, notes=(*result.notes, *notes))
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        write_result(result, slim, decided)
    return slim, result, decided


def _looks_at_batches(by: str | Scores) -> bool:
    if isinstance(by, Scores):
        return False
    found = find_criterion(by)
    return found.reads_data and found.needs not in TRAINED


def plain_batches(
    source: Source, splits: Splits, recipe: Recipe, device: str | None, *, shuffle: bool
) -> Batches:
    """Return the images of a split as they are, without augmentation."""
    return Batches(
        source, size=recipe.batch, mean=splits.mean, std=splits.std, shuffle=shuffle,
        seed=recipe.seed, device=device or "cpu", channels_last=recipe.channels_last,
    )  # fmt: skip
