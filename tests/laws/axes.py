"""Random axes, random things said of them, and a brute-force oracle that knows what they mean.

The oracle reads an axis as one set of coordinates (leaf, index) for each of its positions:
a position survives if and only if all of its coordinates do. It knows of `Node` only how to
read it, and nothing of how axes are aligned.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tonsor.axes.algebra import (
    Node,
    concat_of,
    leaf_nodes,
    pin,
    product_of,
    split,
    take,
    unify,
)
from tonsor.axes.tree import freeze
from tonsor.types import Axis, Concat, Leaf

Coordinates = list[frozenset[tuple[str, int]]]

# ---------------------------------------------------------------- the oracle


def coordinates(axis: Axis) -> Coordinates:
    """List, for each position of an axis, the (leaf, index) pairs that it stands on."""
    if isinstance(axis, Leaf):
        return [frozenset([(axis.name, i)]) for i in range(axis.size)]
    if isinstance(axis, Concat):
        return [position for part in axis.segments for position in coordinates(part)]
    places = itertools.product(*(coordinates(factor) for factor in axis.factors))
    return [frozenset[tuple[str, int]]().union(*place) for place in places]


def permuted(axis: Axis, name: str, order: Sequence[int]) -> list[int]:
    """Return which old position each position of an axis holds when one leaf is reordered."""
    if isinstance(axis, Leaf):
        return list(order) if axis.name == name else list(range(axis.size))
    if isinstance(axis, Concat):
        found: list[int] = []
        for part in axis.segments:
            start = len(found)
            found += [start + i for i in permuted(part, name, order)]
        return found
    found = [0]
    for part in axis.factors:
        inner = permuted(part, name, order)
        found = [i * part.size + j for i in found for j in inner]
    return found


def frozen(nodes: Sequence[Node[str]]) -> tuple[list[Axis], set[str]]:
    """Freeze nodes together; return them, and the names of their leaves that are pinned.

    Leaves of one index count as pinned: a whole axis never goes.
    """
    found = {id(leaf): leaf for node in nodes for leaf in leaf_nodes(node)}
    names = {key: f"l{i}" for i, key in enumerate(found)}
    pinned = {names[key] for key, leaf in found.items() if leaf.reasons or leaf.size < 2}
    memo: dict[int, Axis] = {}
    return [freeze(node, names, memo) for node in nodes], pinned


def partition(nodes: Sequence[Node[str]]) -> tuple[list[list[tuple[int, ...]]], bool]:
    """Number all coordinates as they are first met; say also whether anything is pinned.

    Two poolings of axes mean the same if and only if their partitions are equal. Leaves of
    one index are left out: a position that stands on nothing else always survives.
    """
    axes, _ = frozen(nodes)
    rows = [coordinates(axis) for axis in axes]
    leaves = [leaf for node in nodes for leaf in leaf_nodes(node)]
    single = {c for row in rows for p in row for c in p} - {
        (name, i) for name, size in _sizes(axes).items() if size > 1 for i in range(size)
    }
    # A position is told apart by where else its coordinates occur.
    occurs: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for a, row in enumerate(rows):
        for p, position in enumerate(row):
            for c in position - single:
                occurs.setdefault(c, []).append((a, p))
    number = {where: i for i, where in enumerate(sorted({tuple(w) for w in occurs.values()}))}
    numbered = [
        [tuple(sorted({number[tuple(occurs[c])] for c in position - single})) for position in row]
        for row in rows
    ]
    return numbered, any(leaf.reasons for leaf in leaves)


def _sizes(axes: Sequence[Axis]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    stack = list(axes)
    while stack:
        axis = stack.pop()
        if isinstance(axis, Leaf):
            sizes[axis.name] = axis.size
        else:
            stack += axis.segments if isinstance(axis, Concat) else axis.factors
    return sizes


# ---------------------------------------------------------------- random trees

Tree = tuple[str, int] | tuple[str, tuple["Tree", ...]]
"""("a", 6) is a leaf called a; ("x", parts) a product and ("+", parts) a concatenation."""


def size_of(tree: Tree) -> int:
    kind, body = tree
    if isinstance(body, int):
        return body
    sizes = [size_of(part) for part in body]
    return math.prod(sizes) if kind == "x" else sum(sizes)


def build(tree: Tree, pool: dict[Tree, Node[str]]) -> Node[str]:
    """Build an axis; leaves of one name and size are one leaf."""
    kind, body = tree
    if isinstance(body, int):
        return pool.setdefault(tree, Node(body))
    parts = [build(part, pool) for part in body]
    return product_of(parts) if kind == "x" else concat_of(parts)


@st.composite
def trees(draw: st.DrawFn, size: int, depth: int = 3) -> Tree:
    """An axis of `size` indices, some of whose leaves are shared with other axes."""
    divisors = [d for d in range(2, size) if size % d == 0]
    kinds = ["leaf"]
    if depth and size > 1:
        kinds += ["+"] + ["x"] * bool(divisors)
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        return draw(st.sampled_from("abcd")), size
    if kind == "x":
        outer = draw(st.sampled_from(divisors))
        parts = outer, size // outer
    else:
        first = draw(st.integers(1, size - 1))
        parts = first, size - first
    return kind, tuple(draw(trees(part, depth - 1)) for part in parts)


SIZES = st.sampled_from([4, 6, 8, 12, 16, 24])
ANY_SIZE = st.integers(0, 9)


@st.composite
def wild_trees(draw: st.DrawFn, depth: int = 3) -> Tree:
    """An axis of any size, also of none."""
    kind = draw(st.sampled_from(["leaf", "x", "+"] if depth else ["leaf"]))
    if kind == "leaf":
        return draw(st.sampled_from("abcd")), draw(ANY_SIZE)
    return kind, tuple(draw(st.lists(wild_trees(depth - 1), max_size=3)))


# ---------------------------------------------------------------- random programs


@dataclass(frozen=True)
class Say:
    """One thing said of axes in a pool: `what`, of which of them, and numbers for it."""

    what: str
    i: int
    j: int = 0
    sizes: tuple[int, ...] = ()


@dataclass
class Pool:
    """Axes by number, and all that was ever said of them."""

    nodes: list[Node[str]]
    sizes: list[int] = field(default_factory=list)
    said: list[tuple[Say, tuple[Node[str], ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sizes = [node.size for node in self.nodes]

    def add(self, node: Node[str]) -> None:
        self.nodes.append(node)
        self.sizes.append(node.size)

    def do(self, say: Say) -> None:
        """Say one thing, and remember the nodes it was about."""
        a = self.nodes[say.i % len(self.nodes)]
        b = self.nodes[say.j % len(self.nodes)]
        if say.what == "unify":
            unify(a, b, str)
            self.said.append((say, (a, b)))
        elif say.what == "pin":
            pin(a, "because")
        elif say.what == "split":
            parts = split(a, say.sizes, str)
            self.said.append((say, (a, *parts)))
            for part in parts:
                self.add(part)
        elif say.what == "take":
            low, high = say.sizes
            part = take(a, low, high, str)
            self.said.append((say, (a, part)))
            self.add(part)
        elif math.prod((a.size, b.size)) <= 64:
            whole = product_of([a, b]) if say.what == "x" else concat_of([a, b])
            self.said.append((say, (whole, a, b)))
            self.add(whole)


@st.composite
def sayings(draw: st.DrawFn, sizes: Sequence[int], *, wild: bool) -> list[Say]:
    """A program over axes of these sizes; unless `wild`, only what fits is said."""
    program: list[Say] = []
    known = list(sizes)
    kinds = st.sampled_from(["unify", "unify", "split", "take", "x", "+", "pin"])
    for what in draw(st.lists(kinds, max_size=8)):
        i, j = draw(st.integers(0, len(known) - 1)), draw(st.integers(0, len(known) - 1))
        size = known[i]
        if what == "unify" and not wild:
            j = draw(st.sampled_from([n for n, other in enumerate(known) if other == size]))
        numbers: tuple[int, ...] = ()
        if what == "split":
            numbers = draw(_wild_factors if wild else factors(size))
            known += numbers
        elif what == "take":
            low, high = sorted(draw(st.tuples(st.integers(0, size), st.integers(0, size))))
            numbers = low, high + draw(st.integers(0, 3)) if wild else high
            known.append(high - low)
        elif what in "x+" and size * known[j] <= 64:
            known.append(size * known[j] if what == "x" else size + known[j])
        program.append(Say(what, i, j, numbers))
    return program


@st.composite
def factors(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """Numbers whose product is `size`."""
    found: list[int] = []
    while size > 1 and len(found) < 3:
        found.append(draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0])))
        size //= found[-1]
    return (*found, size)


_wild_factors = st.lists(ANY_SIZE, max_size=3).map(tuple)
