"""Answers of models on the same images, and what may be said of their differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from tonsor.train.data import Batches
from tonsor.train.evaluate import logits_of, modes_kept

Answers = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean with its standard error over the images, both as fractions."""

    mean: float
    error: float

    @property
    def percent(self) -> str:
        """The mean and the error in percent."""
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f}"

    @property
    def signed(self) -> str:
        """A difference in percent points, with its sign."""
        return f"{100 * self.mean:+.1f} ± {100 * self.error:.1f}"


@torch.no_grad()
def answers(model: nn.Module, batches: Batches) -> Answers:
    """Return for each image, in order, whether the model is right."""
    right = []
    with modes_kept(model):
        model.eval()
        for images, labels in batches.epoch(0):
            chosen = logits_of(model(images), batches.classes).argmax(1)
            right.append((chosen == labels).cpu().numpy())
    return np.concatenate(right)


def packed(right: Answers) -> str:
    """Write answers as text, four images a letter."""
    return np.packbits(right).tobytes().hex()


def unpacked(text: str, count: int) -> Answers:
    """Read what `packed` wrote.

    >>> unpacked(packed(np.array([True, False, True])), 3).tolist()
    [True, False, True]
    """
    bits = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    return np.unpackbits(bits)[:count].astype(bool)


def accuracy(runs: Sequence[Answers]) -> Figure:
    """The mean accuracy of runs (one a seed) on the same images."""
    return _figure(np.mean(runs, axis=0))


def difference(runs: Sequence[Answers], others: Sequence[Answers]) -> Figure:
    """How much better runs are than others, image by image.

    Images that both get right, or both wrong, say nothing and cost nothing: the error is that of
    the differences, which is smaller than what two separate accuracies would give.
    """
    return _figure(np.mean(runs, axis=0) - np.mean(others, axis=0))


def spread(runs: Sequence[Answers]) -> float:
    """The standard deviation of the accuracy over the seeds; NaN for one seed."""
    if len(runs) < 2:
        return math.nan
    return float(np.std([r.mean() for r in runs], ddof=1))


def _figure(by_image: Any) -> Figure:
    count = len(by_image)
    error = float(np.std(by_image, ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Figure(float(np.mean(by_image)), error)
