"""Filters of each convolution as pools, whatever they are coupled to: as papers on filters count.

A filter that goes leaves zeros in its place, so that nothing it is added to has to become smaller.
Where its channel is made by nothing else it goes as a channel, and the next layer shrinks too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import row
from tonsor.criteria.many import Many
from tonsor.families.fibres import FibreLayer
from tonsor.families.maps import as_run
from tonsor.families.norms import scale_and_shift
from tonsor.fibres import FibreMask
from tonsor.methods.earlier import Earlier
from tonsor.methods.pools.base import Expected, Unwatched, Wanted
from tonsor.methods.pools.drawn import Held, hold
from tonsor.methods.pools.fibres import criterion_of, frame_of
from tonsor.methods.silence import silenced
from tonsor.plans import Plan


class FilterPools(Unwatched):
    """The filters of each convolution that may lose stripes, all stripes of a filter at once.

    A filter is masked in the scale and shift of the BatchNorm behind it, or else in its own weights
    and bias.
    """

    def __init__(self, anatomy: Anatomy, wanted: Wanted) -> None:
        self.frame, self.layers = frame_of(anatomy, "stripes", wanted)
        self._anatomy = anatomy
        self._criteria = [criterion_of(by, "filters") for by in wanted.criteria]
        self.there: Mapping[str, Tensor] = {
            x.name: torch.from_numpy(self.frame.start[x.name].any(axis=1)) for x in self.layers
        }
        self.tied: Sequence[Mapping[str, int]] = [{x.name: 1} for x in self.layers]
        self.earlier = Earlier.of(self.frame)
        places = _places(anatomy, self.layers)
        held = hold(anatomy, [n for mine in places.values() for n in mine], wanted.mode)
        self.held: Mapping[str, tuple[Held, ...]] = {
            layer: tuple(held[n] for n in mine) for layer, mine in places.items()
        }

    @torch.no_grad()
    def scores(self) -> list[Tensor]:
        """Score the filters of all layers."""
        many = Many([self._anatomy.parameters[x.weight] for x in self.layers])
        found = [many.scores(by) for by in self._criteria]
        return [
            torch.stack([_checked(x, mine[i]) for mine in found]) for i, x in enumerate(self.layers)
        ]

    def show_(self, drawn: Sequence[Tensor], kept: Sequence[Tensor] | None = None) -> None:
        """Mask what is behind the filters."""
        for i, layer in enumerate(self.layers):
            for held in self.held[layer.name]:
                shape = (-1, *(1,) * (held.weight.dim() - 1))
                held.show_(drawn[i].view(shape), None if kept is None else kept[i].view(shape))

    def silence(self, kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """Return what scales and shifts dead filters."""
        return silenced(self.frame, self._masks(kept), self.earlier.drops)

    def amount(self, kept: Sequence[Tensor], target: str) -> float:
        """Return the cost of what is left, with what follows."""
        if target == "pieces":
            return sum(int(k.sum()) for k in kept)
        return self.frame.amount(self._masks(kept), target)

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return what it costs where no channel goes with its filter."""
        if target == "pieces":
            return sum(left.values())
        fibres = {x.name: left[x.name] * x.positions for x in self.layers}
        return self.frame.amount_of(fibres, target)

    def expected(self, target: str) -> Expected:
        """Return what tells the cost where filters stay in part.

        A channel that only one layer makes goes with its filter, so that the next layer costs less:
        that is why a block whose first layer loses a part costs less in its second one too.
        """
        if target == "pieces":
            return lambda stays: torch.cat(list(stays)).sum()
        order = {x.name: i for i, x in enumerate(self.layers)}
        alone = {g: order[n] for g, n in self.frame.following.alone().items() if n in order}
        cost = self.frame.smooth(target, list(order), list(alone))
        sizes = torch.tensor([float(x.positions) for x in self.layers], dtype=torch.float64)
        made = list(alone.values())

        def expects(stays: Sequence[Tensor]) -> Tensor:
            filters = torch.stack([s.sum() for s in stays])
            return cost(torch.cat([filters * sizes, filters[made]]))

        return expects

    def whole(self, target: str) -> float:
        """Return the cost of the whole model."""
        if target == "pieces":
            return sum(x.filters for x in self.layers)
        return self.frame.whole(target)

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these filters."""
        return self.frame.plan(self._masks(kept), {"pieces": "filters", **made_by})

    def _masks(self, kept: Sequence[Tensor]) -> dict[str, FibreMask]:
        """Return the stripes that stay: those of an earlier plan, of the filters that stay."""
        return {
            x.name: self.frame.start[x.name] & np.asarray(k.numpy(), dtype=np.bool_)[:, None]
            for x, k in zip(self.layers, kept, strict=True)
        }


def _places(anatomy: Anatomy, layers: Sequence[FibreLayer]) -> dict[str, list[str]]:
    """Return the parameters that filters are masked in, by the name of each layer."""
    run, shifts = as_run(anatomy), scale_and_shift(anatomy)
    found: dict[str, list[str]] = {}
    for layer in layers:
        own = [layer.weight, layer.weight.removesuffix("weight") + "bias"]
        places = {
            run.norms[value][0] if run.readers[value] == 1 and value in run.norms else ""
            for use in anatomy.uses.get(layer.weight, ())
            for value in use.outputs
        }
        scale = places.pop() if len(places) == 1 else ""
        found[layer.name] = (
            [n for n in (scale, shifts[scale]) if n] if scale in shifts
            else [n for n in own if n in anatomy.parameters]
        )  # fmt: skip
    return found


def _checked(layer: FibreLayer, values: Tensor) -> Tensor:
    return torch.from_numpy(
        row(values, made=True, where=f"'{layer.weight}'", tensor=layer.weight).values
    )
