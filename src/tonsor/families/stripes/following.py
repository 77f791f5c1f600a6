"""What follows where stripes go: filters without any, and branches that no longer say anything.

A filter with no stripe left makes a channel of zeros. Where nothing else makes that channel it goes
through the channels family, so that what reads it shrinks too. A branch all of whose ways lead
through a convolution without stripes is the same for every input, and its block becomes its
shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.axes.tree import Mask, mask, project
from tonsor.drops import Drop
from tonsor.errors import SelectionError
from tonsor.families.blocks.block import Block
from tonsor.families.blocks.find import find_blocks
from tonsor.families.channels import parts
from tonsor.families.stripes.layers import StripeLayer, StripeLayers
from tonsor.graph.spots import Spots
from tonsor.stripes import StripeMask
from tonsor.surgery.dropping import gone
from tonsor.types import Axis, Op, Ref, refs

Masks = Mapping[str, StripeMask]
"""Which stripes stay of each layer: `[filter, position]`, by the name of the layer."""
_NORMS = ("batch_norm", "native_batch_norm", "instance_norm", "group_norm")


@dataclass(frozen=True, slots=True)
class Branch:
    """A block that becomes its shortcut once any of some layers has no stripe.

    `ends` are parameters that make the branch be zero if they are; empty where none are known.
    """

    drop: Drop
    layers: frozenset[str]
    ends: tuple[str, ...]


class Following:
    """Work out what follows of a choice of stripes, for one model.

    With `silenced`, blocks of which it is not known what makes their branch zero stay.
    """

    def __init__(self, anatomy: Anatomy, layers: StripeLayers, *, silenced: bool = False) -> None:
        self.anatomy = anatomy
        self.layers = {x.name: x for x in layers.free}
        found = _branches(anatomy, layers.free)
        self.branches = tuple(b for b in found if b.ends or not silenced)
        makers = _makers(anatomy, {x.weight: x.name for x in layers.free})
        self._makers = {group: made for group, made in makers if group not in layers.held}

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
        for group, makers in self._makers.items():
            stay: Mask | None = None
            for layer, axis in makers:
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

    def filters(self, layer: str, alive: Mapping[str, Mask]) -> Mask:
        """Return which filters of a layer are left where so many channels are."""
        return mask(self.anatomy.axes(self.layers[layer].weight)[0], alive)


def _makers(
    anatomy: Anatomy, layers: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[str, Axis]]]]:
    """Yield the groups that only filters of these layers make, with the layers.

    Groups that lose indices in step with others are left out.
    """
    for group in anatomy.prunable:
        if group.tie is not None or group.unit != 1:
            continue
        made = [p.member for p in parts(anatomy, group) if p.made]
        if made and all(m.dim == 0 and m.tensor in layers for m in made):
            yield group.name, [(layers[m.tensor], m.axis) for m in made]


def _branches(anatomy: Anatomy, layers: Sequence[StripeLayer]) -> Iterator[Branch]:
    try:
        blocks = find_blocks(anatomy)
    except SelectionError:  # of an exported model nobody knows the calls
        return
    spots = Spots(anatomy.graph)
    for block in blocks.removable:
        if block.drop is None or not block.drop.zeroed:
            continue
        found = [(spots.index(s), s.argument) for s in block.drop.zeroed]
        ends = [(i, anatomy.graph.ops[i][argument].value) for i, argument in found if i is not None]
        on_the_way = frozenset(
            x.name for x in layers if gone([block.drop], x.weight)
            and not _reached(anatomy, block, ends, x.name)
        )  # fmt: skip
        if on_the_way:
            silent = [_ends_in(anatomy, value) for _, value in ends]
            known = tuple(n for names in silent for n in names) if all(silent) else ()
            yield Branch(block.drop, on_the_way, known)


def _reached(
    anatomy: Anatomy, block: Block, ends: Sequence[tuple[int, int]], layer: str
) -> bool:  # fmt: skip
    """Whether a way leads from what goes into a block to its end that is not through a layer.

    `ends` are the operators that add the branch, each with the value that it adds.
    """
    graph = anatomy.graph
    (call,) = [c for c in graph.calls if c.module == block.modules[0]]
    seen = set(refs((*call.args, *call.kwargs.values())))
    for op in graph.ops[call.first : max((i for i, _ in ends), default=call.stop)]:
        if op.module != layer and seen & set(op.inputs):
            seen |= {v for v in op.outputs if v is not None}
    return any(value in seen for _, value in ends)


def _ends_in(anatomy: Anatomy, value: int) -> tuple[str, ...]:
    """Name the parameters that scale and shift what a branch ends in, if a norm is what it is."""
    maker = _maker(anatomy, value)
    if maker is None or not any(maker.name == f"aten.{n}" for n in _NORMS):
        return ()
    names = [
        anatomy.graph.name_of.get(maker[k].value, "")
        for k in ("weight", "bias") if isinstance(maker.get(k), Ref)
    ]  # fmt: skip
    known = tuple(n for n in names if n in anatomy.parameters)
    return known if len(known) == 2 else ()


def _maker(anatomy: Anatomy, value: int) -> Op | None:
    return next((op for op in reversed(anatomy.graph.ops) if value in op.outputs), None)
