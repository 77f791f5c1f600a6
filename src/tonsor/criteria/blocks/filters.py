"""The filters of the layers of blocks: all that a weight makes, as one group.

What may be cut together is often only a part of a layer: where a network pads channels, the
filters behind the old ones are another group than those behind the new, and heads are groups of
several filters. To judge a layer as a whole, such a dimension is taken for one axis of filters.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from tonsor.anatomy import Anatomy
from tonsor.families.blocks.block import Blocks
from tonsor.types import Axis, Group, Leaf, Member


def holders(anatomy: Anatomy, blocks: Blocks) -> dict[int, str]:
    """Return the block that each parameter goes with, by the parameter's `id`."""
    return {id(anatomy.parameters[n]): b.name for b in blocks for n in b.parameters}


def by_filter(anatomy: Anatomy, blocks: Blocks) -> Anatomy:
    """Return an anatomy of the filters of blocks, as if all of them could be cut."""
    inside = set(holders(anatomy, blocks))
    mine = {n for n, p in anatomy.parameters.items() if id(p) in inside}
    whole = {a: Leaf(f"filters {i}", a.size) for i, a in enumerate(_made(anatomy, mine))}
    solution = replace(
        anatomy.solution,
        axes={v: tuple(whole.get(a, a) for a in axes) for v, axes in anatomy.solution.axes.items()},
    )
    members: dict[str, list[Member]] = {leaf.name: [] for leaf in whole.values()}
    for tensor in anatomy.graph.tensors:
        for dim, axis in enumerate(anatomy.axes(tensor)):
            if axis in whole:
                members[whole[axis].name].append(Member(tensor, dim, whole[axis]))
    made = [
        Group(leaf.name, leaf.size, "channels", tuple(members[leaf.name]))
        for leaf in whole.values()
    ]
    left = [
        replace(g, pins=(), members=tuple(m for m in g.members if m.axis not in whole))
        for g in anatomy.groups
    ]
    groups = tuple(g for g in [*left, *made] if any(m.tensor in mine for m in g.members))
    return anatomy.but(solution=solution, groups=groups)


def _made(anatomy: Anatomy, names: Set[str]) -> Iterator[Axis]:
    """Yield the axes that weights make whole, and that are no single group."""
    found: dict[Axis, None] = {}
    for name, value in anatomy.graph.parameters.items():
        if name not in names or len(anatomy.solution.axes[value]) < 2:
            continue
        shown = {
            axis
            for use in anatomy.uses.get(anatomy.graph.name_of[value], ())
            for out in use.outputs
            for axis in anatomy.solution.axes[out]
        }
        taken = {
            axis
            for use in anatomy.uses.get(anatomy.graph.name_of[value], ())
            for given in use.data
            for axis in anatomy.solution.axes[given]
        }
        for axis in anatomy.axes(name):
            if not isinstance(axis, Leaf) and axis in shown - taken:
                found[axis] = None
    yield from found
