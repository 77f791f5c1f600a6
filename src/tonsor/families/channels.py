"""Channels: one index of a group, over every parameter that the group runs through.

Heads are a channels family too, whose group is the head axis of an attention. Each
parameter is shown as views with the pieces in front, so that a criterion is a reduction
over the other dimensions; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.types import Axis, Concat, Group, Leaf, Member


def pieces(anatomy: Anatomy, group: Group) -> Iterator[tuple[Member, Tensor]]:
    """Yield views `[piece, ...]` of the weights of a group, one for each place it runs through.

    Weights are parameters of two dimensions or more; where a group has none, its vectors.
    """
    tensors = anatomy.parameters
    seen: set[tuple[int, int]] = set()
    own = [m for m in group.members if m.tensor in tensors]
    weights = [m for m in own if tensors[m.tensor].dim() > 1] or own
    for member in weights:
        tensor = tensors[member.tensor]
        if (id(tensor), member.dim) in seen:
            continue  # tied
        seen.add((id(tensor), member.dim))
        for view in views(tensor.detach().movedim(member.dim, 0), member.axis, group.name):
            yield member, view


def views(tensor: Tensor, axis: Axis, leaf: str) -> Iterator[Tensor]:
    """Yield a tensor, whose first dimension is `axis`, with `leaf` in front instead."""
    if isinstance(axis, Leaf):
        if axis.name == leaf:
            yield tensor
    elif isinstance(axis, Concat):
        start = 0
        for segment in axis.segments:
            yield from views(tensor.narrow(0, start, segment.size), segment, leaf)
            start += segment.size
    else:
        grid = tensor.unflatten(0, [f.size for f in axis.factors])
        for i, factor in enumerate(axis.factors):
            yield from views(grid.movedim(i, 0), factor, leaf)
