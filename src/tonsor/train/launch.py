"""One process, several, or sharded: what `accelerate` needs before, and leaves behind after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from tonsor.errors import TrainError
from tonsor.train.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator

_LEFT_BEHIND = ("forward", "_original_forward", "_is_accelerate_prepared")


@contextmanager
def launched(recipe: Recipe, device: str | None) -> Iterator[Accelerator]:
    """Yield an accelerator for a recipe, as `torchrun` or `accelerate launch` has set it up."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, is_initialized

    ours = not is_initialized()
    try:
        accelerator = Accelerator(mixed_precision=recipe.precision, cpu=device == "cpu")
    except ValueError as error:
        message = f"accelerate can't run precision='{recipe.precision}' here: {error}"
        raise TrainError(message) from error
    try:
        where = accelerator.device
        if device is not None and where.type != device.partition(":")[0]:
            message = f"device='{device}' was asked for, but accelerate has set up '{where}'"
            raise TrainError(message)
        if accelerator.gradient_accumulation_steps != 1:
            message = (
                f"accelerate was told gradient_accumulation_steps="
                f"{accelerator.gradient_accumulation_steps}; say recipe.accumulate instead, which "
                "keeps the size of the batch"
            )
            raise TrainError(message)
        if recipe.precision == "fp16" and where.type == "cpu":
            message = "precision='fp16' needs an accelerator; on the CPU use 'bf16' or 'no'"
            raise TrainError(message)
        yield accelerator
    finally:
        if ours:
            # The next run may have another precision, and accelerate allows one a process.
            AcceleratorState._reset_state(reset_partial_state=not accelerator.use_distributed)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Take back what `accelerate` hangs on a model: a new forward, and a note that it did."""
    before = {name: model.__dict__[name] for name in _LEFT_BEHIND if name in model.__dict__}
    try:
        yield
    finally:
        for name in _LEFT_BEHIND:
            model.__dict__.pop(name, None)
        model.__dict__.update(before)


def share_buffers(model: nn.Module, accelerator: Accelerator) -> None:
    """Give all processes the buffers of the first, such as the statistics of its BatchNorms."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
