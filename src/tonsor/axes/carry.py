"""Carry axes from a cut model over to its original, where the same leaf may have another name.

A leaf is named after a place, and places change when a factor of a product is cut down to one:
what was `w[0].1` is then all that is left of `w[0]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tonsor.types import Axis, Concat, Leaf, Product, concat, leaves, product

Layout = Mapping[str, tuple[Axis, ...]]


def shrunk(axis: Axis, counts: Mapping[str, int]) -> Axis:
    """Return an axis as it is once its leaves have lost indices."""
    if isinstance(axis, Leaf):
        return Leaf(axis.name, counts.get(axis.name, axis.size))
    if isinstance(axis, Concat):
        return concat(*(shrunk(p, counts) for p in axis.segments))
    return product(*(shrunk(p, counts) for p in axis.factors))


def originals(layout: Layout, before: Layout, counts: Mapping[str, int]) -> dict[str, Axis]:
    """Say for the leaves of a cut model's layout what they were before the cut.

    `counts` says how many indices of each leaf of the original the cut has left. A leaf whose
    name is taken by something else in the original gets a new one.
    """
    found: dict[str, Axis] = {}
    for tensor, axes in layout.items():
        for now, was in zip(axes, before.get(tensor, ()), strict=False):
            for name, axis in _aligned(now, was, counts):
                found.setdefault(name, axis)
    taken = {leaf.name for axis in found.values() for leaf in leaves(axis)}
    taken |= {leaf.name for axes in before.values() for a in axes for leaf in leaves(a)}
    for axes in layout.values():
        for leaf in (leaf for axis in axes for leaf in leaves(axis)):
            if leaf.name not in found:
                name = leaf.name
                while name in taken:
                    name += "'"
                taken.add(name)
                found[leaf.name] = Leaf(name, leaf.size)
    return found


def carried(axis: Axis, originals: Mapping[str, Axis]) -> Axis:
    """Write an axis of the cut model in the leaves of its original."""
    if isinstance(axis, Leaf):
        return originals.get(axis.name, axis)
    if isinstance(axis, Concat):
        return concat(*(carried(p, originals) for p in axis.segments))
    return product(*(carried(p, originals) for p in axis.factors))


def _aligned(now: Axis, was: Axis, counts: Mapping[str, int]) -> Iterator[tuple[str, Axis]]:
    """Yield the leaves of `now`, each with the part of `was` that it has come from."""
    was = _without_ones(was, counts)
    if isinstance(now, Leaf):
        if now.size == shrunk(was, counts).size:
            yield now.name, was
        return
    kind, make = (Product, product) if isinstance(now, Product) else (Concat, concat)
    parts = _flat(was, kind)
    for part in _flat(now, kind):
        here: list[Axis] = []
        while parts and (not here or shrunk(make(*here), counts).size < part.size):
            here.append(parts.pop(0))
        if not here or shrunk(make(*here), counts).size != part.size:
            return
        yield from _aligned(part, here[0] if len(here) == 1 else make(*here), counts)


def _without_ones(axis: Axis, counts: Mapping[str, int]) -> Axis:
    """Leave out the factors of which one index is left: nothing of the cut model shows them."""
    if not isinstance(axis, Product):
        return axis
    parts = [f for f in _flat(axis, Product) if shrunk(f, counts).size != 1]
    return product(*parts) if len(parts) > 1 else parts[0] if parts else axis


def _flat(axis: Axis, kind: type[Product] | type[Concat]) -> list[Axis]:
    """Return the factors or segments of an axis, also of those inside them."""
    if not isinstance(axis, kind):
        return [axis]
    parts = axis.factors if isinstance(axis, Product) else axis.segments
    return [p for part in parts for p in _flat(part, kind)]
