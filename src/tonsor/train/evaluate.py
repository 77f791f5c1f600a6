"""How good a model is on one split, with the size of the doubt."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.errors import TrainError
from tonsor.train.data import Batches


@dataclass(frozen=True)
class Evaluation:
    """How many were right, of how many, at which mean loss.

    >>> judged = Evaluation(correct=90, total=100, loss=0.3)
    >>> print(judged)
    90.00 % ± 3.00 (90 of 100)
    """

    correct: int
    total: int
    loss: float

    @property
    def accuracy(self) -> float:
        """The part that was right, from 0 to 1."""
        return self.correct / self.total if self.total else math.nan

    @property
    def standard_error(self) -> float:
        """The standard error of the accuracy that comes from the number of images alone."""
        p = self.accuracy
        return math.sqrt(p * (1 - p) / self.total) if self.total else math.nan

    def __str__(self) -> str:
        spread = 100 * self.standard_error
        return f"{100 * self.accuracy:.2f} % ± {spread:.2f} ({self.correct} of {self.total})"


def evaluate(
    model: nn.Module,
    batches: Batches,
    *,
    device: torch.device | str | None = None,
    add_up: Callable[[Tensor], Tensor] | None = None,
) -> Evaluation:
    """Judge a model on batches, in eval mode; afterwards each module is in the mode it was in.

    `add_up` sums a tensor over the processes where each holds a share of the batches.
    """
    where = torch.device(device) if device is not None else batches.device
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad(), modes_kept(model):
        model.eval()
        for images, labels in batches.epoch(0):
            if not len(labels):
                continue
            images, labels = images.to(where), labels.to(where)
            logits = logits_of(model(images), batches.classes)
            right = (logits.argmax(1) == labels).sum()
            loss = F.cross_entropy(logits.float(), labels, reduction="sum")
            sums += torch.stack([right.float(), right.new_tensor(len(labels)).float(), loss]).cpu()
    if add_up is not None:
        sums = add_up(sums.float().to(where)).cpu().double()
    correct, total, loss = sums.tolist()
    return Evaluation(round(correct), round(total), loss / total if total else math.nan)


def logits_of(output: Any, classes: int) -> Tensor:
    """Return the scores of the classes, also where a model wraps them as transformers do."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if isinstance(logits, Tensor) and logits.ndim == 2:
        if logits.shape[1] < classes:
            message = (
                f"the model tells {logits.shape[1]} classes apart, the data has {classes}; "
                f"make the model with {classes} of them"
            )
            raise TrainError(message)
        return logits
    got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
    message = (
        f"the model must return scores of the shape (images, classes), or an object that has them "
        f"as `logits`; it returned {got}. For other tasks, use your own loop and tonsor's methods."
    )
    raise TrainError(message)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put each module back in the mode it was in, train or eval."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
