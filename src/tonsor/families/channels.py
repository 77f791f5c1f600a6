"""Channels: one index of a group, over every parameter that the group runs through.

Heads are a channels family too, whose group is the head axis of an attention. Each
parameter is shown as views with the pieces in front, so that a criterion is a reduction
over the other dimensions; nothing is copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.axes.uses import Use
from tonsor.types import Axis, Concat, Group, Leaf, Member, refs

_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")


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
            if times(segment, leaf):
                yield from views(tensor.narrow(0, start, segment.size), segment, leaf)
            start += segment.size
    else:
        grid = tensor.unflatten(0, [f.size for f in axis.factors])
        for i, factor in enumerate(axis.factors):
            if times(factor, leaf):
                yield from views(grid.movedim(i, 0), factor, leaf)


def as_real(tensor: Tensor) -> Tensor:
    """View complex numbers as pairs of real ones, along a last dimension."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def times(axis: Axis, leaf: str) -> int:
    """Return how many views of an axis show a leaf: how often it runs through the axis."""
    if isinstance(axis, Leaf):
        return int(axis.name == leaf)
    inner = axis.segments if isinstance(axis, Concat) else axis.factors
    return sum(times(a, leaf) for a in inner)


def _places(anatomy: Anatomy, group: Group, members: list[Member]) -> Iterator[Part]:
    tensors, seen = anatomy.parameters, set[tuple[int, int]]()
    along = Counter(m.tensor for m in group.members)
    for member in members:
        tensor = tensors[member.tensor]
        if (id(tensor), member.dim) in seen:
            continue  # tied
        seen.add((id(tensor), member.dim))
        made = _makes(anatomy, member, group.name, twice=along[member.tensor] > 1)
        for place in range(times(member.axis, group.name)):
            yield Part(member, made, group.name, place)


def _makes(anatomy: Anatomy, member: Member, leaf: str, *, twice: bool) -> bool:
    """Whether a parameter makes a leaf along this dimension, in any of its uses."""
    value = anatomy.graph.tensors[member.tensor]
    for use in anatomy.uses.get(anatomy.graph.name_of[value], ()):
        out = _comes_out(anatomy, use, member.tensor)
        here = out is None or out == member.dim
        if here and makes_in(anatomy, use, member.tensor, leaf, twice=twice):
            return True
    return False


def makes_in(anatomy: Anatomy, use: Use, tensor: str, leaf: str, *, twice: bool) -> bool:
    """Whether a leaf comes into being in this use of a parameter.

    It comes out and did not come in; or it did, and is made anew, as the parameter runs along it
    `twice` and sums over one of its dimensions.
    """
    if not use.shows(anatomy.solution, leaf):
        return False
    return not use.reads(anatomy.solution, leaf) or (
        twice and _comes_out(anatomy, use, tensor) is not None
    )


def sums_in(anatomy: Anatomy, use: Use, tensor: str, leaf: str, *, twice: bool) -> bool:
    """Whether a parameter takes a leaf in and sums over it: what comes out is not the same."""
    if not use.reads(anatomy.solution, leaf):
        return False
    return not use.shows(anatomy.solution, leaf) or (
        twice and _comes_out(anatomy, use, tensor) is not None
    )


def _comes_out(anatomy: Anatomy, use: Use, tensor: str) -> int | None:
    """The dimension of a weight that its operator puts out; None where that is not known."""
    op, value = anatomy.graph.ops[use.op], anatomy.graph.tensors[tensor]
    rank, name = len(anatomy.axes(tensor)), op.name.partition(".")[2]
    places = [k for k, v in op.args.items() if value in refs((v,))]
    if rank < 2 or len(places) != 1:
        return None
    if "conv" in name:
        return 1 if "transpose" in name or op.get("transposed", False) else 0
    if name == "linear" or name in _RECURRENT:
        return 0
    if name in ("matmul", "mm", "bmm") and places[0] in ("other", "mat2"):
        return rank - 1
    return None
