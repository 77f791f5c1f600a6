"""Scores from the gradients of weights, their squares over samples, and the curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Means, Place, row
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError
from tonsor.families.channels import Part, as_real, parts
from tonsor.families.norms import scale_and_shift, scales

_UNREACHED = "no gradient of the loss reaches it"
_NO_WEIGHTS = "it has no weights"
_NO_SCALE = "no BatchNorm with a scale runs along it"


class GradientGatherer:
    """Scores each minibatch from the gradients of its loss.

    The scores are averaged, each minibatch by its number of samples.
    """

    def __init__(self, anatomy: Anatomy, found: Registered) -> None:
        self._found = found
        self._tensors = anatomy.parameters
        self._of_scales = found.needs == "scale_gradients"
        self._shifts = scale_and_shift(anatomy) if self._of_scales else {}
        self._parts: dict[str, list[Part]] = {
            g.name: list(scales(anatomy, g, self._shifts) if self._of_scales else parts(anatomy, g))
            for g in anatomy.prunable
        }
        self._sizes = {g.name: g.size for g in anatomy.prunable}
        self.means = Means()
        why = _NO_SCALE if self._of_scales else _NO_WEIGHTS
        self.unscored = {name: why for name, mine in self._parts.items() if not mine}

    @property
    def scored(self) -> bool:
        """Whether there is any group to judge."""
        return any(self._parts.values())

    @property
    def names(self) -> list[str]:
        """The parameters whose gradients are looked at."""
        names = dict.fromkeys(p.member.tensor for mine in self._parts.values() for p in mine)
        names |= dict.fromkeys(self._shifts[n] for n in list(names) if self._shifts.get(n))
        return list(names)

    def watching(self, model: nn.Module, samples: int) -> Any:
        """Nothing is watched in the forward pass."""
        return nullcontext()

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        assert loss is not None
        names = self.names
        found = gradients(loss, [self._tensors[n] for n in names])
        self.add(dict(zip(names, found, strict=True)), samples)

    @torch.no_grad()
    def add(self, found: Mapping[str, Tensor | None], samples: float = 1.0) -> None:
        """Take in the gradients of a minibatch, however they came about."""
        for group, mine in self._parts.items():
            for part in mine:
                name = part.member.tensor
                shift = self._shifts.get(name)
                where = _where(part)
                if found.get(name) is None and (not shift or found.get(shift) is None):
                    self.means.miss(group, where, samples)
                    continue
                shown = self._shown(part, name, found)
                if self._of_scales:
                    shown += self._shown(part, shift, found) if shift else _nothing(shown)
                self.means.add(group, where, part.made, self._found(*shown), samples)

    def _shown(self, part: Part, name: str, found: Mapping[str, Tensor | None]) -> list[Tensor]:
        weight, gradient = self._tensors[name], found.get(name)
        if gradient is None:
            gradient = torch.zeros_like(weight)
        return [as_real(part.of(weight)), as_real(part.of(gradient))]

    def rows(self) -> Mapping[str, list[Row]]:
        """Return the mean scores."""
        places = [
            Place(name, _where(part), part.made, self._sizes[name], part.member.tensor)
            for name, mine in self._parts.items()
            for part in mine
        ]
        rows = self.means.rows(places)
        for name in self._parts:
            if name not in rows:
                self.unscored.setdefault(name, _UNREACHED)
        return rows


class DiagonalGatherer:
    """Averages something of the size of each weight over samples, and scores once at the end.

    `measure(loss, weights)` returns it for one minibatch, with None for weights that the loss
    does not depend on.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        found: Registered,
        measure: Callable[[Tensor, list[Tensor]], Iterable[Tensor | None]],
    ) -> None:
        self._found = found
        self._measure = measure
        self._tensors = anatomy.parameters
        self._parts = {g.name: list(parts(anatomy, g)) for g in anatomy.prunable}
        names = dict.fromkeys(p.member.tensor for mine in self._parts.values() for p in mine)
        self._names = list(names)
        self._means = Means()
        self.unscored = {n: _NO_WEIGHTS for n, mine in self._parts.items() if not mine}

    @property
    def scored(self) -> bool:
        """Whether there is any group to judge."""
        return any(self._parts.values())

    def watching(self, model: nn.Module, samples: int) -> Any:
        """Nothing is watched in the forward pass."""
        return nullcontext()

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        assert loss is not None
        values = self._measure(loss, [self._tensors[n] for n in self._names])
        for name, value in zip(self._names, values, strict=True):
            if value is None:
                self._means.miss(name, "", samples)
            else:
                self._means.add(name, "", True, as_real(value), samples)

    @torch.no_grad()
    def rows(self) -> Mapping[str, list[Row]]:
        """Score each place by its weights and what was measured of them."""
        values = dict(self._measured())
        found: dict[str, list[Row]] = {}
        for group, mine in self._parts.items():
            for part in mine:
                name = part.member.tensor
                if name in values:
                    weight = as_real(part.of(self._tensors[name])).double()
                    scores = self._found(weight, part.of(values[name].to(weight.device)))
                    found.setdefault(group, []).append(
                        row(scores, made=part.made, where=_where(part), tensor=name)
                    )
            if group not in found:
                self.unscored.setdefault(group, _UNREACHED)
        return found

    def _measured(self) -> Iterator[tuple[str, Tensor]]:
        sizes = {n: as_real(self._tensors[n].detach()).shape for n in self._names}
        places = [Place(n, "", True, s.numel()) for n, s in sizes.items()]
        for place, mean in self._means.reached(places):
            yield place.group, mean.view(sizes[place.group])


def gradients(
    loss: Tensor, weights: Sequence[Tensor], *, create_graph: bool = False
) -> list[Tensor | None]:
    """Return the gradients of a loss; None for a weight that it does not depend on."""
    free = [w for w in weights if w.requires_grad]
    if not loss.requires_grad or not free:
        message = (
            "the loss depends on no parameter. It must be computed from the output of the model, "
            "with operators that have derivatives."
        )
        raise ScoreError(message)
    with explained("the loss has no gradient"):
        found = iter(torch.autograd.grad(loss, free, allow_unused=True, create_graph=create_graph))
        return [next(found) if w.requires_grad else None for w in weights]


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Say of what autograd can't do that it is the model's or the loss's doing."""
    try:
        yield
    except (RuntimeError, NotImplementedError) as error:
        message = (
            f"{what}: {error}. The loss must be computed from the output of the model, with "
            "operators that have derivatives; or choose a criterion that needs none."
        )
        raise ScoreError(message) from error


def _where(part: Part) -> str:
    where = f"'{part.member.tensor}' along dimension {part.member.dim}"
    return f"{where}, place {part.place}" if part.place else where


def _nothing(shown: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(t) for t in shown]
