"""What follows where fibres go: channels that nothing makes or reads, and blocks that say nothing.

A filter with no stripe left makes a channel of zeros, and an input with no column left is not read.
Where nothing else makes or reads that channel it goes through the channels family, so that the
layers beside it shrink too. A branch that hangs on a convolution without stripes makes its block
become its shortcut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.axes.tree import Mask, mask, project
from tonsor.drops import Drop
from tonsor.families.columns.readers import readers
from tonsor.families.fibres import FibreLayers
from tonsor.families.stripes.branches import Branch, branches
from tonsor.families.stripes.makers import makers
from tonsor.fibres import FibreMask, dim_of
from tonsor.surgery.dropping import gone
from tonsor.types import Leaf

Masks = Mapping[str, FibreMask]
"""Which fibres stay of each layer: `[filter or input, position]`, by the name of the layer."""


class Following:
    """Work out what follows of a choice of fibres, for one model.

    With `silenced`, blocks of which it is not known what makes their branch zero stay.
    """

    def __init__(self, anatomy: Anatomy, layers: FibreLayers, *, silenced: bool = False) -> None:
        self.anatomy, self._dim = anatomy, dim_of(layers.kind)
        self.layers = {x.name: x for x in layers.free}
        stripes = layers.kind == "stripes"
        found = branches(anatomy, layers.free) if stripes else ()
        self.branches = tuple(b for b in found if b.ends or not silenced)
        known = (makers if stripes else readers)(anatomy, {x.weight: x.name for x in layers.free})
        self._hangs_on = {group: on for group, on in known if group not in layers.held}

    def stop(self) -> None:
        """Let no channel follow from now on."""
        self._hangs_on = {}

    def alone(self) -> dict[str, str]:
        """Name the layer for each group whose channels are the filters or inputs of it alone."""
        return {
            group: on[0][0] for group, on in self._hangs_on.items()
            if len(on) == 1 and isinstance(on[0][1], Leaf)
        }  # fmt: skip

    @property
    def may_empty(self) -> frozenset[str]:
        """The layers that may lose all stripes, as their block then goes without loss of sense."""
        return frozenset(n for b in self.branches for n in b.layers)

    def dead_branches(self, masks: Masks) -> tuple[Branch, ...]:
        """Return the blocks that say nothing any more."""
        empty = {name for name, kept in masks.items() if not kept.any()}
        return tuple(b for b in self.branches if b.layers & empty)

    def alive(
        self, masks: Masks, drops: Sequence[Drop] = (), before: Mapping[str, Mask] | None = None
    ) -> dict[str, Mask]:
        """Return which channels stay of each group that loses some; one always stays."""
        found = {n: m.copy() for n, m in (before or {}).items()}
        for group, hangs_on in self._hangs_on.items():
            stay: Mask | None = None
            for layer, axis in hangs_on:
                if gone(drops, self.layers[layer].weight):
                    continue
                for leaf, seen in project(axis, np.asarray(masks[layer].any(axis=1))):
                    if leaf.name == group:
                        stay = seen if stay is None else stay | seen
            if stay is None:
                continue  # it goes with its block
            stay = stay & found.get(group, np.ones_like(stay))
            if not stay.any():
                stay[np.flatnonzero(found.get(group, np.ones_like(stay)))[:1]] = True
            if not stay.all():
                found[group] = stay
        return found

    def left(self, layer: str, alive: Mapping[str, Mask]) -> Mask:
        """Return which filters or inputs of a layer are left where so many channels are."""
        return mask(self.anatomy.axes(self.layers[layer].weight)[self._dim], alive)
