"""Search for criteria and rates, cut, train on, and judge: in one call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError, TrainError
from tonsor.files import replacing
from tonsor.methods.lfpc.lfpc import LearnedCriteria
from tonsor.methods.lfpc.search import Search
from tonsor.methods.run import plain_batches
from tonsor.plans import Plan
from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches, Splits, Subset
from tonsor.train.data.split import stratified
from tonsor.train.loop import fit
from tonsor.train.recipe import Recipe
from tonsor.train.result import Result

SEARCH = "search.json"
Weights = Literal["searched", "given"]


def parted(splits: Splits, share: float, seed: int) -> tuple[Splits, Subset]:
    """Part the training images: those for the weights, and the `share` that odds are learned from.

    The test images are out of reach of both: a search is judged on the validation images.
    """
    labels = splits.train.labels
    count = round(share * len(labels))
    if not 0 < count < len(labels):
        message = (
            f"share={share!r} of {len(labels)} training images leaves none for the odds, or none "
            "for the weights; 0.5 parts them equally"
        )
        raise TrainError(message)
    odds = stratified(labels, count, seed, leave=0)
    weights = torch.ones(len(labels), dtype=torch.bool)
    weights[odds] = False
    rest = weights.nonzero().flatten()
    given = replace(splits, train=Subset(splits.train, rest), test=splits.validation)
    return given, Subset(splits.train, odds)


def search_criteria(
    model: nn.Module,
    anatomy: Anatomy,
    splits: Splits,
    recipe: Recipe,
    *,
    budget: str,
    folder: str | Path,
    share: float = 0.5,
    search: Search | Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    save_every: int = 1000,
    log_every: int = 10,
    board: bool = True,
    quiet: bool = False,
    **options: Any,
) -> tuple[Plan, LearnedCriteria]:
    """Search by a recipe for the criterion and the rate of each site, and return the plan of it.

    The `share` of the training images that the odds are learned from is kept from the weights,
    which train meanwhile. `search` may be a mapping of the options to change. The other `options`
    are those of `LearnedCriteria`. In the end the model has what is gone at zero, and its full
    size; how the search went is in `folder` as `search.json`.
    """
    folder = Path(folder)
    given, odds = parted(splits, share, recipe.seed)
    recipe = recipe.but(choose="last")
    steps = recipe.epochs * _steps(len(given.train), recipe.batch)
    how = search if isinstance(search, Search) else Search(**(search or {}))
    batches = Batches(
        odds, size=recipe.batch, mean=splits.mean, std=splits.std, shuffle=True,
        seed=recipe.seed + 1, augment=splits.augment if recipe.augment else None,
        device=device or next(model.parameters()).device, channels_last=recipe.channels_last,
    )  # fmt: skip
    method = LearnedCriteria(
        model, anatomy, budget=budget, batches=batches, steps=steps, search=how,
        seed=recipe.seed, **options,
    )  # fmt: skip
    try:
        result = fit(
            model, given, recipe, folder=folder, resume=resume, method=method, device=device,
            save_every=save_every, log_every=log_every, board=board, quiet=quiet,
        )  # fmt: skip
    finally:
        method.release()  # or a search that was stopped could not go on with the same model
    assert result.plan is not None
    with replacing(folder / SEARCH) as part:
        part.write_text(json.dumps(course_data(method)) + "\n", "utf-8")
    return result.plan, method


def prune_by_learned_criteria(
    model: nn.Module,
    anatomy: Anatomy,
    splits: Splits,
    recipe: Recipe,
    *,
    budget: str,
    folder: str | Path,
    search_epochs: int | None = None,
    weights: Weights = "searched",
    resume: bool = False,
    teacher: nn.Module | None = None,
    recalibrate: int = 20,
    verify: bool = True,
    device: str | None = None,
    save_every: int = 1000,
    log_every: int = 10,
    board: bool = True,
    quiet: bool = False,
    **options: Any,
) -> tuple[nn.Module, Result, Plan]:
    """Search for criteria and rates, cut, and train the slim model on, by one recipe each.

    Returns the slim model, proven equal to the masked one unless `verify=False`, the result, and
    the plan. The search takes `search_epochs`, or as many as the recipe has, over half of the
    training images; it is in `folder` under `search`, and its options are those of
    `search_criteria`. Then the whole training split is trained on. `weights="given"` cuts the
    weights that were there before the search, instead of those that it has trained. The statistics
    of BatchNorm are taken anew after the cut from so many batches as `recalibrate` says.
    """
    if weights == "given" and options.get("family") == "filters":
        message = (
            "filters leave what their norms shift, unless that was learned to be zero: cut the "
            "weights that were searched (weights='searched')"
        )
        raise SelectionError(message)
    folder = Path(folder)
    before = {n: t.detach().clone() for n, t in model.state_dict().items()}
    first = recipe if search_epochs is None else recipe.but(epochs=search_epochs)
    try:
        decided, _ = search_criteria(
            model, anatomy, splits, first.but(distill=0.0), budget=budget, folder=folder / "search",
            resume=resume and (folder / "search").exists(), device=device, save_every=save_every,
            log_every=log_every, board=board, quiet=quiet, **options,
        )  # fmt: skip
    finally:
        if weights == "given":  # if it was stopped too, or the same model could not go on
            model.load_state_dict(before)
    slim = decided.apply(model, verify=verify)
    if recalibrate:
        where = str(next(slim.parameters()).device)
        shown = plain_batches(splits.train, splits, recipe, where, shuffle=True)
        calibrate(slim, shown, recalibrate)
    result = fit(
        slim, splits, recipe, folder=folder, resume=resume, teacher=teacher, plan=decided,
        device=device, save_every=save_every, log_every=log_every, board=board, quiet=quiet,
    )  # fmt: skip
    return slim, result, decided


def _steps(images: int, batch: int) -> int:
    """Return the steps of an epoch, which leaves out a last minibatch of a single image."""
    return math.ceil(images / batch) - int(images > batch and images % batch == 1)


def course_data(method: LearnedCriteria) -> dict[str, Any]:
    """Return how a search has gone until now, as `search.json` holds it."""
    return {
        "sites": [site.name for site in method.sites.every],
        "criteria": list(method.criteria), "rates": list(method.search.rates),
        "target": method.target, "tolerance": method.search.tolerance,
        "moments": [asdict(m) for m in method.history],
    }  # fmt: skip
