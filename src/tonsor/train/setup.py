"""Before the first step: the folder, the batches, and whether all of it goes together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tonsor._version import __version__
from tonsor.errors import CheckpointError, RecipeError, TrainError
from tonsor.train.checkpoint import checkpoints, load_checkpoint
from tonsor.train.data import Batches, Splits
from tonsor.train.identity import check_identity
from tonsor.train.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def check(recipe: Recipe, teacher: nn.Module | None, save_every: int, log_every: int) -> None:
    """Raise where what is asked for does not go together."""
    if recipe.distill and teacher is None:
        message = f"recipe.distill={recipe.distill} needs a teacher: fit(..., teacher=unpruned)"
        raise RecipeError(message)
    if teacher is not None and not recipe.distill:
        message = "a teacher was given, but recipe.distill=0 does not listen to it; try 0.5"
        raise RecipeError(message)
    if save_every < 1 or log_every < 1:
        message = f"save_every={save_every} and log_every={log_every} must be at least 1"
        raise TrainError(message)


def opened(
    folder: Path, resume: bool, who: dict[str, Any], accelerator: Accelerator, notes: list[str]
) -> dict[str, Any] | None:
    """Return what is to be gone on from, when the folder can be written and fits the run."""
    with accelerator.main_process_first():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".probe-{accelerator.process_index}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            message = f"can't write into the folder '{folder}': {error.strerror}; choose another"
            raise CheckpointError(message) from error
        if not resume and checkpoints(folder):
            message = (
                f"'{folder}' holds a run already; go on with it by resume=True (--resume), or "
                "choose another folder"
            )
            raise CheckpointError(message)
        saved = load_checkpoint(folder, notes.append) if resume else None
    if saved is not None:
        check_identity(saved["identity"], who, folder)
    elif resume:
        notes.append(f"there is no checkpoint in '{folder}' yet; the run begins at its first step")
    return saved


def make_batches(
    splits: Splits, recipe: Recipe, accelerator: Accelerator
) -> tuple[Batches, Batches, Batches, Batches]:
    """Return the batches to train on, the same images plain and unshared, and the other splits."""
    world, rank, size = accelerator.num_processes, accelerator.process_index, recipe.batch
    if size % world:
        message = f"recipe.batch={size} can't be shared out equally among {world} processes"
        raise RecipeError(message)
    total = len(splits.train)
    if total < max(2, world):
        message = f"there are {total} images to train on, too few"
        raise TrainError(message)
    options: dict[str, Any] = {
        "size": size, "mean": splits.mean, "std": splits.std, "seed": recipe.seed,
        "device": accelerator.device, "channels_last": recipe.channels_last,
    }  # fmt: skip
    shared = {**options, "rank": rank, "world": world}
    # A last batch with nothing for some process, or with one image for a BatchNorm, is left out.
    drop = total > size and 0 < total % size < max(2, world)
    augment = splits.augment if recipe.augment else None
    return (
        Batches(splits.train, **shared, shuffle=True, augment=augment, drop_last=drop),
        Batches(splits.train, **options, shuffle=True),
        Batches(splits.validation, **shared, shuffle=False),
        Batches(splits.test, **shared, shuffle=False),
    )


def about_run(model: nn.Module, splits: Splits, accelerator: Accelerator) -> dict[str, Any]:
    """What is good to know of a run later, beside its recipe."""
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": splits.name,
        "images": [len(splits.train), len(splits.validation), len(splits.test)],
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "tonsor": __version__,
        "torch": torch.__version__,
    }
