"""What all ways of gathering scores share: means over minibatches, taken over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError


class Gatherer(Protocol):
    """Collects what a criterion needs, minibatch by minibatch.

    `unscored` says of groups that can't be judged why not; it is whole once `rows` was asked for.
    """

    unscored: dict[str, str]

    @property
    def scored(self) -> bool:
        """Whether there is any group to judge."""
        ...

    def watching(self, model: nn.Module, samples: int) -> AbstractContextManager[Any]:
        """What is to be entered around the forward pass of so many samples."""
        ...

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run; `loss` is the mean over its samples."""
        ...

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the scores of each place of each group; all processes have to ask at once."""
        ...


@dataclass(slots=True)
class Mean:
    """A mean that is added to bit by bit."""

    total: Tensor | None = None
    weight: float = 0.0

    def add(self, value: Tensor, weight: float = 1.0) -> None:
        """Count a value in."""
        value = exact(value.detach()) * weight
        self.total = value if self.total is None else self.total + value
        self.weight += weight


@dataclass(frozen=True, slots=True)
class Place:
    """One place that a group is seen at, known before anything is: so many scores will come."""

    group: str
    where: str
    made: bool
    size: int
    tensor: str = ""


@dataclass(slots=True)
class Means:
    """Means of the scores of each place.

    `missed` is the weight of minibatches that did not reach a place before it was first seen.
    """

    places: dict[tuple[str, str], tuple[bool, Mean]] = field(default_factory=dict)
    missed: dict[tuple[str, str], float] = field(default_factory=dict)

    def add(self, group: str, where: str, made: bool, values: Tensor, weight: float = 1.0) -> None:
        """Count the scores of one place in."""
        key = group, where
        if key not in self.places:
            self.places[key] = (made, Mean(weight=self.missed.pop(key, 0.0)))
        self.places[key][1].add(values, weight)

    def miss(self, group: str, where: str, weight: float = 1.0) -> None:
        """Count a minibatch to which a place is nothing: zero, if others reach it."""
        key = group, where
        if key in self.places:
            self.places[key][1].weight += weight
        else:
            self.missed[key] = self.missed.get(key, 0.0) + weight

    def reached(self, known: Iterable[Place]) -> Iterator[tuple[Place, Tensor]]:
        """Yield the means of the places that any process has reached, in the order of `known`.

        All processes know the same places, so that each sends and waits as often as the others.
        """
        for place in known:
            key = place.group, place.where
            mean = self.places[key][1] if key in self.places else None
            missed = self.missed.get(key, 0.0)
            if not together():
                if mean is not None and mean.total is not None:
                    yield place, mean.total / mean.weight
                continue
            total = None if mean is None else mean.total
            share = torch.zeros(place.size + 2, dtype=torch.float64)
            if mean is not None and total is not None:
                share[:-2], share[-2], share[-1] = total.flatten().cpu(), mean.weight, 1.0
            else:
                share[-2] = missed if mean is None else mean.weight
            share = in_all(share)
            if share[-1] > 0:
                yield place, share[:-2] / share[-2]

    def rows(self, known: Iterable[Place]) -> dict[str, list[Row]]:
        """Return the means of the places that were reached as rows."""
        found: dict[str, list[Row]] = {}
        for place, values in self.reached(known):
            made = row(values, made=place.made, where=place.where, tensor=place.tensor)
            found.setdefault(place.group, []).append(made)
        return found


def exact(value: Tensor) -> Tensor:
    """Return a tensor in double precision, on the CPU where its device has none."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


def together() -> bool:
    """Whether several processes score together."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def in_all(values: Tensor) -> Tensor:
    """Add something up over the processes of a distributed run; alone, return it."""
    distributed = torch.distributed
    if not together():
        return values
    there = values.to("cuda" if distributed.get_backend() == "nccl" else "cpu", copy=True)
    distributed.all_reduce(there)
    return there.to(values.device)


def row(values: Tensor, *, made: bool, where: str, tensor: str = "") -> Row:
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
    return Row(array, made, where, tensor)
