"""The learning rate, as a function of the step alone, so that there is nothing to save."""

from __future__ import annotations

import math

from tonsor.train.recipe import Recipe


def rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step, counted from 0 over the whole run.

    >>> recipe = Recipe(epochs=30, lr=1.0, steps=((10, 0.1), (20, 0.1)))
    >>> [round(rate(recipe, epoch * 5, 5), 3) for epoch in (0, 9, 10, 20)]
    [1.0, 1.0, 0.1, 0.01]

    Warm-up is linear, and its first step is not zero. A cosine takes what is left after it; a
    triangle has its peak in the middle of that.
    """
    warm = round(recipe.warmup * steps_per_epoch)
    if step < warm:
        return _after(recipe, 0.0, step, steps_per_epoch) * (step + 1) / warm
    left = max(1, recipe.epochs * steps_per_epoch - warm)
    return _after(recipe, (step - warm) / left, step, steps_per_epoch)


def _after(recipe: Recipe, part: float, step: int, steps_per_epoch: int) -> float:
    """The rate when `part` of the way behind the warm-up is done."""
    low, high = recipe.lr_end, recipe.lr
    match recipe.schedule:
        case "cosine":
            return low + (high - low) * (1 + math.cos(math.pi * part)) / 2
        case "triangular":
            climb = part if recipe.warmup == 0 else 0.5 + part / 2  # a warm-up is the way up
            return low + (high - low) * (1 - abs(2 * climb - 1))
        case "step":
            gone = (f for epoch, f in recipe.steps if step >= round(epoch * steps_per_epoch))
            return high * math.prod(gone)
