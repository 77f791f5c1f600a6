"""Channels: one index of a group, over every parameter that the group runs through.

Heads are a channels family too, whose group is the head axis of an attention. Each
parameter is shown as views with the pieces in front, so that a criterion is a reduction
over the other dimensions; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.types import Axis, Concat, Group, Leaf, Member


@dataclass(frozen=True, slots=True)
class Part:
    """One place of a parameter that a group runs through.

    `made` says whether the parameter makes the pieces (the filters of a convolution) or only
    reads or passes on what another has made. `of` shows a tensor of the same shape as the
    parameter, such as its gradient, with the pieces in front: `[piece, ...]`.
    """

    member: Member
    made: bool
    group: str
    place: int

    def of(self, tensor: Tensor) -> Tensor:
        """View a tensor that has the parameter's shape with the pieces in front."""
        front = tensor.detach().movedim(self.member.dim, 0)
        for place, view in enumerate(views(front, self.member.axis, self.group)):
            if place == self.place:
                return view
        message = f"'{self.group}' does not run through {self.member} so often"
        raise IndexError(message)


def parts(anatomy: Anatomy, group: Group) -> Iterator[Part]:
    """Yield the places of the weights of a group.

    Weights are parameters of two dimensions or more; where a group has none, its vectors. Tied
    parameters are looked at once.
    """
    tensors = anatomy.parameters
    own = [m for m in group.members if m.tensor in tensors]
    weights = [m for m in own if tensors[m.tensor].dim() > 1] or own
    yield from _places(anatomy, group, weights)


def vectors(anatomy: Anatomy, group: Group) -> Iterator[Part]:
    """Yield the places of the parameters of one dimension: biases, and scales of norms."""
    tensors = anatomy.parameters
    own = [m for m in group.members if m.tensor in tensors and tensors[m.tensor].dim() == 1]
    yield from _places(anatomy, group, own)


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


def times(axis: Axis, leaf: str) -> int:
    """Return how many views of an axis show a leaf: how often it runs through the axis."""
    if isinstance(axis, Leaf):
        return int(axis.name == leaf)
    inner = axis.segments if isinstance(axis, Concat) else axis.factors
    return sum(times(a, leaf) for a in inner)


def _places(anatomy: Anatomy, group: Group, members: list[Member]) -> Iterator[Part]:
    tensors, seen = anatomy.parameters, set[tuple[int, int]]()
    for member in members:
        tensor = tensors[member.tensor]
        if (id(tensor), member.dim) in seen:
            continue  # tied
        seen.add((id(tensor), member.dim))
        made = _made(anatomy, member, group.name)
        for place in range(times(member.axis, group.name)):
            yield Part(member, made, group.name, place)


def _made(anatomy: Anatomy, member: Member, leaf: str) -> bool:
    """Whether a parameter makes a leaf: in every use it comes out and did not come in."""
    first = anatomy.graph.name_of[anatomy.graph.tensors[member.tensor]]
    found = anatomy.uses.get(first, ())
    return bool(found) and all(use.makes(anatomy.solution, leaf) for use in found)
