"""What a finished axis is good for: its mask, its size after a cut, its text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tonsor.axes.algebra import Node, find, segments_of
from tonsor.types import Axis, Concat, Leaf, Product

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def freeze(node: Node[Any], names: Mapping[int, str], memo: dict[int, Axis]) -> Axis:
    """Turn a solved node into a frozen axis; `names` gives each leaf (by id) its name.

    Segments of segments become segments, however often an axis was cut in two.
    """
    node = find(node)
    known = memo.get(id(node))
    if known is None:
        if node.kind == "leaf":
            known = Leaf(names[id(node)], node.size)
        elif node.kind == "product":
            known = Product(tuple(freeze(p, names, memo) for p in node.parts), node.size)
        else:
            segments = tuple(freeze(p, names, memo) for p in segments_of(node))
            known = Concat(segments, node.size)
        memo[id(node)] = known
    return known


def mask(axis: Axis, keep: Mapping[str, Mask]) -> Mask:
    """Return which indices of an axis survive, from the masks of its leaves.

    >>> from tonsor.types import Leaf, product
    >>> mask(product(Leaf("a", 2), Leaf("b", 2)), {"b": np.array([True, False])}).tolist()
    [True, False, True, False]
    """
    if isinstance(axis, Leaf):
        kept = keep.get(axis.name)
        return np.ones(axis.size, dtype=np.bool_) if kept is None else kept
    if isinstance(axis, Concat):
        return np.concatenate([mask(s, keep) for s in axis.segments])
    out = mask(axis.factors[0], keep)
    for factor in axis.factors[1:]:
        out = (out[:, None] & mask(factor, keep)[None, :]).reshape(-1)
    return out


def count(axis: Axis, counts: Mapping[str, int]) -> int:
    """Return how many indices of an axis survive, from the counts of its leaves."""
    if isinstance(axis, Leaf):
        return counts.get(axis.name, axis.size)
    if isinstance(axis, Concat):
        return sum(count(s, counts) for s in axis.segments)
    total = 1
    for factor in axis.factors:
        total *= count(factor, counts)
    return total


def project(axis: Axis, want: Mask) -> Iterator[tuple[Leaf, Mask]]:
    """Yield, for each place of a leaf in an axis, which of its indices a mask keeps."""
    if isinstance(axis, Leaf):
        yield axis, want
    elif isinstance(axis, Concat):
        start = 0
        for segment in axis.segments:
            yield from project(segment, want[start : start + segment.size])
            start += segment.size
    else:
        grid = want.reshape([f.size for f in axis.factors])
        for i, factor in enumerate(axis.factors):
            others = tuple(j for j in range(grid.ndim) if j != i)
            yield from project(factor, np.asarray(grid.any(axis=others)))


def axis_text(axis: Axis, names: Mapping[str, str] | None = None) -> str:
    """Write an axis the way people do: `(kv:2 × rep:4) × d:8`."""
    if isinstance(axis, Leaf):
        name = axis.name if names is None else names.get(axis.name, axis.name)
        return f"{name}:{axis.size}"
    parts = axis.factors if isinstance(axis, Product) else axis.segments
    sign = " × " if isinstance(axis, Product) else " ⊕ "
    texts = [axis_text(p, names) for p in parts]
    return sign.join(
        t if isinstance(p, Leaf) else f"({t})" for p, t in zip(parts, texts, strict=True)
    )
