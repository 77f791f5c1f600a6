"""The gradients of one step, the same for any number of parts and processes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tonsor.train.distill import loss_of
from tonsor.train.evaluate import logits_of
from tonsor.train.method import Method
from tonsor.train.recipe import Recipe

if TYPE_CHECKING:
    from accelerate import Accelerator


def gradients(
    accelerator: Accelerator,
    net: nn.Module,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    count: int,
    classes: int,
    recipe: Recipe,
    teacher: nn.Module | None,
    method: Method,
) -> Tensor:
    """Compute the gradients of one batch, in parts; return the loss of this process's share.

    Each part weighs as much as it has images, so that neither the parts nor the processes show in
    the gradients. The mean over the processes is taken while they are collected.
    """
    total = images.new_zeros(())
    parts = list(zip(images.chunk(recipe.accumulate), labels.chunk(recipe.accumulate), strict=True))
    for number, (x, y) in enumerate(parts, 1):
        last = number == len(parts)
        with nullcontext() if last else accelerator.no_sync(net):
            answers = None
            if teacher is not None:
                with torch.no_grad(), accelerator.autocast():
                    answers = logits_of(teacher(x), classes)
            loss = loss_of(
                logits_of(net(x), classes), y, smoothing=recipe.label_smoothing,
                teacher=answers, weight=recipe.distill, temperature=recipe.temperature,
            )  # fmt: skip
            weight = len(y) * accelerator.num_processes / count
            loss = loss if weight == 1 else loss * weight
            penalty = method.penalty(model) if last else None
            loss = loss if penalty is None else loss + penalty
            accelerator.backward(loss)
        total = total + loss.detach()
    return total
