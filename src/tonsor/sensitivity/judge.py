"""Judging what a model returns: how many are right, and at which loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tonsor.errors import TrainError
from tonsor.train.evaluate import Evaluation

Judge = Callable[[Any, Any], tuple[Any, Any, Any]]
"""From output and target of a minibatch to (how many are right, sum of losses, of how many)."""


def top_one(output: Any, target: Any) -> tuple[int, float, int]:
    """Count the images whose best class is the right one, and add up the cross entropy."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    labelled = isinstance(target, Tensor) and not target.is_floating_point() and target.dim() == 1
    if not isinstance(logits, Tensor) or logits.dim() != 2 or not labelled:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        message = (
            f"only scores of the shape (images, classes) with one label each can be judged without "
            f"help, and the model returned {got}; give judge=function(output, target) that returns "
            "(how many are right, sum of losses, of how many)"
        )
        raise TrainError(message)
    loss = F.cross_entropy(logits.float(), target, reduction="sum")
    return int((logits.argmax(1) == target).sum()), float(loss), len(target)


@dataclass(slots=True)
class Tally:
    """Judgements of minibatches added up."""

    judge: Judge
    correct: int = 0
    loss: float = 0.0
    total: int = 0

    def see(self, output: Any, target: Any) -> None:
        """Judge one minibatch more."""
        found = self.judge(output, target)
        try:
            right, loss, count = (float(number) for number in found)
        except (TypeError, ValueError):
            right, loss, count = math.nan, math.nan, math.nan
        if right != right // 1 or count != count // 1 or not 0 <= right <= count:
            message = (
                f"judge returned {found!r}; it must return (how many are right, sum of losses, of "
                "how many), the first and the last as whole numbers"
            )
            raise TrainError(message)
        self.correct += int(right)
        self.loss += loss
        self.total += int(count)

    @property
    def evaluation(self) -> Evaluation:
        """What is known so far."""
        mean = self.loss / self.total if self.total else math.nan
        return Evaluation(self.correct, self.total, mean)
