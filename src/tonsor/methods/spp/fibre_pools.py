"""Columns, or stripes, as pools: one for each convolution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.fibres import score_fibres
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import FibreLayers, no_layer_free
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask, Kind
from tonsor.methods.earlier import Earlier
from tonsor.methods.silence import silenced
from tonsor.methods.spp.drawn import GradMode, Held, hold
from tonsor.plans import Plan
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import keeping
from tonsor.select.names import Named


class FibrePools:
    """The fibres of each convolution that may lose some."""

    def __init__(
        self, anatomy: Anatomy, kind: Kind, by: str, keep: Iterable[Named], after: Plan | None,
        mode: GradMode,
    ) -> None:  # fmt: skip
        found = (find_columns if kind == "columns" else find_stripes)(anatomy)
        layers = keeping(anatomy, found, keep)
        if not layers.free:
            raise no_layer_free(layers)
        self.frame = Frame(anatomy, layers, after, silenced=True)
        self._anatomy, self._by = anatomy, by
        start = self.frame.start
        every = self.frame.layers
        self.layers = FibreLayers(kind, tuple(x for x in every.free if x.name in start))
        if not self.layers:
            raise no_layer_free(every)
        self.there: Mapping[str, Tensor] = {
            x.name: torch.from_numpy(start[x.name].reshape(-1).copy()) for x in self.layers
        }
        self.scores()  # which refuses what can't score fibres
        self.earlier = Earlier.of(self.frame)
        held = hold(anatomy, [x.weight for x in self.layers], mode)
        self.held: Mapping[str, tuple[Held, ...]] = {x.name: (held[x.weight],) for x in self.layers}

    def scores(self) -> list[Tensor]:
        """Score the fibres of all layers."""
        found = score_fibres(self._anatomy, self.layers, self._by, quiet=True).values
        return [torch.from_numpy(found[x.name]) for x in self.layers]

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
