"""Scores from the gradients of weights, their squares over samples, and the curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Mean, Means, row
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError
from tonsor.families.channels import Part, parts
from tonsor.families.norms import scale_and_shift, scales


class GradientGatherer:
    """Scores each minibatch from the gradients of its loss; the scores are averaged."""

    def __init__(self, anatomy: Anatomy, found: Registered) -> None:
        self._found = found
        self._tensors = anatomy.parameters
        self._shifts = scale_and_shift(anatomy) if found.needs == "scale_gradients" else {}
        listed = scales if self._shifts or found.needs == "scale_gradients" else parts
        self._parts: dict[str, list[Part]] = {
            g.name: list(listed(anatomy, g)) for g in anatomy.prunable
        }
        self.means = Means()
        self.unscored: dict[str, str] = {}
        why = "no BatchNorm with a scale runs along it" if listed is scales else "it has no weights"
        for name, mine in self._parts.items():
            if not mine:
                self.unscored[name] = why

    @property
    def names(self) -> list[str]:
        """The parameters whose gradients are looked at."""
        names = dict.fromkeys(p.member.tensor for mine in self._parts.values() for p in mine)
        names |= dict.fromkeys(self._shifts[n] for n in list(names) if self._shifts.get(n))
        return list(names)

    def watching(self, samples: int) -> Any:
        """Nothing is watched in the forward pass."""
        return nullcontext()

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        assert loss is not None
        names = self.names
        self.add(dict(zip(names, gradients(loss, [self._tensors[n] for n in names]), strict=True)))

    @torch.no_grad()
    def add(self, found: Mapping[str, Tensor | None]) -> None:
        """Take in the gradients of a minibatch, however they came about."""
        for group, mine in self._parts.items():
            for part in mine:
                name = part.member.tensor
                shown = self._shown(part, name, found)
                shift = self._shifts.get(name)
                if self._shifts:
                    shown += self._shown(part, shift, found) if shift else _nothing(shown)
                where = f"the gradient of '{name}' along dimension {part.member.dim}"
                where += f", place {part.place}" if part.place else ""
                self.means.add(group, where, part.made, self._found(*shown))

    def _shown(self, part: Part, name: str, found: Mapping[str, Tensor | None]) -> list[Tensor]:
        weight, gradient = self._tensors[name], found.get(name)
        if gradient is None:
            gradient = torch.zeros_like(weight)
        return [part.of(weight), part.of(gradient)]

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the mean scores."""
        return self.means.rows()


class DiagonalGatherer:
    """Averages something of the size of each weight, and scores once at the end.

    `measure(loss, weights)` returns it for one minibatch, with the number that it counts for.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        found: Registered,
        measure: Callable[[Tensor, list[Tensor]], tuple[Iterable[Tensor], float]],
    ) -> None:
        self._found = found
        self._measure = measure
        self._tensors = anatomy.parameters
        self._parts = {g.name: list(parts(anatomy, g)) for g in anatomy.prunable}
        names = dict.fromkeys(p.member.tensor for mine in self._parts.values() for p in mine)
        self._sums = {n: Mean() for n in names}
        self.unscored = {n: "it has no weights" for n, mine in self._parts.items() if not mine}

    def watching(self, samples: int) -> Any:
        """Nothing is watched in the forward pass."""
        return nullcontext()

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        assert loss is not None
        values, count = self._measure(loss, [self._tensors[n] for n in self._sums])
        for mean, value in zip(self._sums.values(), values, strict=True):
            mean.add(value, count)

    @torch.no_grad()
    def rows(self) -> Mapping[str, list[Row]]:
        """Score each place by its weights and what was measured of them."""
        values = {n: m.value() for n, m in self._sums.items()}
        found: dict[str, list[Row]] = {}
        for group, mine in self._parts.items():
            for part in mine:
                name = part.member.tensor
                scores = self._found(part.of(self._tensors[name]).double(), part.of(values[name]))
                place = f"'{name}' along dimension {part.member.dim}"
                found.setdefault(group, []).append(row(scores, made=part.made, where=place))
        return found


def gradients(
    loss: Tensor, weights: list[Tensor], *, create_graph: bool = False
) -> list[Tensor | None]:
    """Return the gradients of a loss; None for a weight that it does not depend on."""
    try:
        return list(
            torch.autograd.grad(loss, weights, allow_unused=True, create_graph=create_graph)
        )
    except RuntimeError as error:
        message = (
            f"the loss has no gradient: {error}. The loss must be computed from the output of the "
            "model, with operators that have derivatives."
        )
        raise ScoreError(message) from error


def _nothing(shown: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(t) for t in shown]
