"""Columns, or stripes, as pools: one for each convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.fibres import checked
from tonsor.criteria.many import Many
from tonsor.criteria.registry import Registered, find_criterion
from tonsor.criteria.score import Scores
from tonsor.errors import SelectionError
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import FibreLayers, no_layer_free
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask, Kind
from tonsor.methods.earlier import Earlier
from tonsor.methods.pools.base import Expected, Unwatched, Wanted
from tonsor.methods.pools.drawn import Held, hold
from tonsor.methods.silence import silenced
from tonsor.plans import Plan
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import keeping


class FibrePools(Unwatched):
    """The fibres of each convolution that may lose some."""

    def __init__(self, anatomy: Anatomy, kind: Kind, wanted: Wanted) -> None:
        self.frame, self.layers = frame_of(anatomy, kind, wanted)
        self._anatomy = anatomy
        self._criteria = [criterion_of(by, kind) for by in wanted.criteria]
        start = self.frame.start
        self.there: Mapping[str, Tensor] = {
            x.name: torch.from_numpy(start[x.name].reshape(-1).copy()) for x in self.layers
        }
        self.tied: Sequence[Mapping[str, int]] = [{x.name: 1} for x in self.layers]
        self.earlier = Earlier.of(self.frame)
        held = hold(anatomy, [x.weight for x in self.layers], wanted.mode)
        self.held: Mapping[str, tuple[Held, ...]] = {x.name: (held[x.weight],) for x in self.layers}

    @torch.no_grad()
    def scores(self) -> list[Tensor]:
        """Score the fibres of all layers."""
        weights = self._anatomy.parameters
        many = Many([x.view(weights[x.weight]) for x in self.layers])
        found = [many.scores(by) for by in self._criteria]
        return [
            torch.stack([
                torch.from_numpy(checked(x, mine[i])) for mine in found
            ]) for i, x in enumerate(self.layers)
        ]  # fmt: skip

    def show_(self, drawn: Sequence[Tensor], kept: Sequence[Tensor] | None = None) -> None:
        """Mask the weights."""
        for i, layer in enumerate(self.layers):
            rows = (-1, 1) if layer.kind == "stripes" else (1, -1)
            shape = (*rows, *layer.kernel)
            (held,) = self.held[layer.name]
            held.show_(drawn[i].view(shape), None if kept is None else kept[i].view(shape))

    def silence(self, kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """Return what scales and shifts dead filters."""
        return silenced(self.frame, self._masks(kept), self.earlier.drops)

    def amount(self, kept: Sequence[Tensor], target: str) -> float:
        """Return the cost of what is left, with what follows."""
        return self.frame.amount(self._masks(kept), target)

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return what it costs where nothing follows."""
        return self.frame.amount_of(left, target)

    def expected(self, target: str) -> Expected:
        """Return what tells the cost where fibres stay in part, and nothing follows."""
        if target == "pieces":
            return lambda stays: torch.cat(list(stays)).sum()
        cost = self.frame.smooth(target, list(self.there))
        return lambda stays: cost(torch.stack([s.sum() for s in stays]))

    def whole(self, target: str) -> float:
        """Return the cost of the whole model."""
        return self.frame.whole(target)

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these fibres, and what follows."""
        return self.frame.plan(self._masks(kept), made_by)

    def _masks(self, kept: Sequence[Tensor]) -> dict[str, FibreMask]:
        return {
            x.name: k.view(x.rows, x.positions).numpy()
            for x, k in zip(self.layers, kept, strict=True)
        }


def frame_of(anatomy: Anatomy, kind: Kind, wanted: Wanted) -> tuple[Frame, FibreLayers]:
    """Return the frame of all choices of fibres, and the convolutions that may lose some."""
    found = (find_columns if kind == "columns" else find_stripes)(anatomy)
    layers = keeping(anatomy, found, wanted.keep)
    if not layers.free:
        raise no_layer_free(layers)
    frame = Frame(anatomy, layers, wanted.after, silenced=True)
    every = frame.layers
    left = FibreLayers(kind, tuple(x for x in every.free if x.name in frame.start))
    if not left:
        raise no_layer_free(every)
    return frame, left


def criterion_of(by: str | Scores, kind: str) -> Registered:
    """Find a criterion that looks at weights, which is all that a step of training can afford."""
    found = find_criterion(by.by if isinstance(by, Scores) else by)
    if isinstance(by, Scores) or found.needs != "weights":
        message = (
            f"'{found.name}' is no criterion of weights alone, by which {kind} are scored anew "
            "after steps of a training; take l1, l2 or another of those"
        )
        raise SelectionError(message)
    return found
