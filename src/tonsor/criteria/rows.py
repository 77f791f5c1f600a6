"""From the scores of each place that a group runs through to one score for each piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from tonsor.errors import SelectionError

Combine = Literal["mean", "sum", "max", "producer", "normalised"]
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Row:
    """Scores of the pieces of a group as one place sees them; `made` says if it makes them.

    `tensor` names the parameter that the place is at.
    """

    values: Array
    made: bool
    where: str
    tensor: str = ""

    def to_unit(self) -> Row:
        """Divide the scores by their Euclidean norm."""
        length = float((self.values**2).sum() ** 0.5)
        return replace(self, values=self.values / (length + 1e-8))


def check_combine(combine: object) -> None:
    """Refuse what is no way to combine."""
    if combine not in get_args(Combine):
        names = ", ".join(f"'{n}'" for n in get_args(Combine))
        message = f"combine must be one of {names}, got {combine!r}"
        raise SelectionError(message)


def combined(rows: Sequence[Row], combine: Combine) -> Array:
    """Combine the places of a group.

    `mean`, `sum` and `max` are over all places, those that make the pieces and those that read
    them. `producer` is the mean over those that make them, as the papers look at filters; where
    nothing is known to make them, over all. `normalised` divides each place by its mean before
    the mean is taken, so that none speaks louder because its weights are more or larger.
    """
    if combine == "producer":
        rows = [r for r in rows if r.made] or rows
    stacked = np.stack([r.values for r in rows])
    if combine == "sum":
        return stacked.sum(axis=0)
    if combine == "max":
        return stacked.max(axis=0)
    if combine == "normalised":
        size = np.abs(stacked).mean(axis=1, keepdims=True)
        stacked = stacked / np.where(size > 0, size, 1.0)
    return stacked.mean(axis=0)
