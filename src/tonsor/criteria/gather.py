"""What all ways of gathering scores share: rows by group, and means over minibatches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError


class Gatherer(Protocol):
    """Collects what a criterion needs, minibatch by minibatch."""

    unscored: dict[str, str]

    def watching(self, samples: int) -> AbstractContextManager[Any]:
        """What is to be entered around the forward pass of so many samples."""
        ...

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run; `loss` is the mean over its samples."""
        ...

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the scores of each place of each group."""
        ...


@dataclass(slots=True)
class Mean:
    """A mean that is added to bit by bit, and taken over all processes where there are several."""

    total: Tensor | None = None
    weight: float = 0.0

    def add(self, value: Tensor, weight: float = 1.0) -> None:
        """Count a value in."""
        value = value.detach().double() * weight
        self.total = value if self.total is None else self.total + value
        self.weight += weight

    def value(self) -> Tensor:
        """Return the mean."""
        assert self.total is not None
        return mean_of_all(self.total, self.weight)


def mean_of_all(total: Tensor, weight: float) -> Tensor:
    """Divide a sum by its weight, both added up over the processes of a distributed run."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        packed = torch.cat([total.flatten(), total.new_tensor([weight])])
        distributed.all_reduce(packed)
        total, weight = packed[:-1].view_as(total), float(packed[-1])
    return total / weight


@dataclass(slots=True)
class Means:
    """Means of the scores of each place, in the order in which they were first met."""

    places: dict[tuple[str, str], tuple[bool, Mean]] = field(default_factory=dict)

    def add(self, group: str, where: str, made: bool, values: Tensor, weight: float = 1.0) -> None:
        """Count the scores of one place in."""
        self.places.setdefault((group, where), (made, Mean()))[1].add(values, weight)

    def rows(self) -> dict[str, list[Row]]:
        """Return the means as rows."""
        found: dict[str, list[Row]] = defaultdict(list)
        for (group, where), (made, mean) in self.places.items():
            found[group].append(row(mean.value(), made=made, where=where))
        return found


def row(values: Tensor, *, made: bool, where: str) -> Row:
    """Make a row, after checking that its scores can be ranked."""
    array = values.double().cpu().numpy()
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array))
        message = (
            f"{where} gives {array[bad[0]]} as score of index {bad[0]} ({len(bad)} of "
            f"{len(array)} are not finite). Ranking NaN or infinite weights would be arbitrary: "
            "repair the weights or the data, or keep this group."
        )
        raise ScoreError(message)
    return Row(array, made, where)
