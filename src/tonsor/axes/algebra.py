"""The algebra of axes: leaves, products and concatenations under unification.

A `Node` is an axis that is still being learned about: a union-find cell which is a leaf,
a product (row-major nesting) or a concatenation (segments side by side). Three operations
are the whole engine: `unify` says that two axes are one, `split` and `take` look at an axis
as factors or as a range of itself. What can't be aligned is pinned with a reason; nothing
here ever raises on sizes that disagree, because a stricter answer is always a sound one.

The module knows nothing of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Literal, TypeVar

R = TypeVar("R")  # what a reason is made of; the algebra only carries it
MAX_REASONS = 4


class Node(Generic[R]):
    """One axis. Compare nodes after `find`: an alias is only a signpost."""

    __slots__ = ("alias", "kind", "parts", "reasons", "roles", "size")

    def __init__(
        self,
        size: int,
        kind: Literal["leaf", "product", "concat"] = "leaf",
        parts: tuple[Node[R], ...] = (),
    ) -> None:
        self.size = size
        self.kind = kind
        self.parts = parts
        self.alias: Node[R] | None = None
        self.reasons: tuple[R, ...] = ()
        self.roles: frozenset[str] = frozenset()


def find(node: Node[R]) -> Node[R]:
    """Follow the signposts to the node that stands for this axis."""
    root = node
    while root.alias is not None:
        root = root.alias
    while node.alias is not None:
        node.alias, node = root, node.alias
    return root


def leaf_nodes(node: Node[R]) -> Iterator[Node[R]]:
    """Yield the leaves of an axis from the outside in."""
    stack = [node]
    while stack:
        node = find(stack.pop())
        if node.kind == "leaf":
            yield node
        stack.extend(reversed(node.parts))


def pin(node: Node[R], reason: R) -> None:
    """Forbid cutting anything of this axis."""
    for leaf in leaf_nodes(node):
        if len(leaf.reasons) < MAX_REASONS and reason not in leaf.reasons:
            leaf.reasons += (reason,)


def note(node: Node[R], role: str) -> None:
    """Remember what part this axis plays, such as being the heads of an attention."""
    for leaf in leaf_nodes(node):
        leaf.roles |= {role}


def product_of(nodes: Sequence[Node[R]]) -> Node[R]:
    """Nest axes, the outermost first; axes of one index vanish."""
    factors = tuple(find(n) for n in nodes if n.size != 1)
    if not factors:
        return Node(1)
    if len(factors) == 1:
        return factors[0]
    return Node(math.prod(f.size for f in factors), "product", factors)


def concat_of(nodes: Sequence[Node[R]]) -> Node[R]:
    """Put axes side by side; empty ones vanish, segments of segments become segments."""
    kept = [n for n in nodes if n.size != 0]
    if not kept:
        return Node(0)
    if len(kept) == 1:
        return find(kept[0])
    segments = tuple(s for n in kept for s in segments_of(n))
    return Node(sum(s.size for s in segments), "concat", segments)


def segments_of(node: Node[R]) -> Iterator[Node[R]]:
    """Yield the segments of an axis, of which none is a concatenation itself."""
    parts = _Parts(node, "concat")
    while parts:
        yield parts.pop()


def _become(leaf: Node[R], other: Node[R]) -> None:
    """Let a leaf stand for another axis of its size; its pins and roles go along."""
    for target in leaf_nodes(other) if leaf.reasons or leaf.roles else ():
        target.roles |= leaf.roles
        for reason in leaf.reasons:
            if len(target.reasons) < MAX_REASONS and reason not in target.reasons:
                target.reasons += (reason,)
    leaf.alias = other


class _Parts(Generic[R]):
    """The factors (or segments) of an axis, taken one by one and flattened on the way."""

    def __init__(self, node: Node[R], kind: Literal["product", "concat"]) -> None:
        self.kind = kind
        self.stack = [node]

    def pop(self) -> Node[R]:
        node = find(self.stack.pop())
        while node.kind == self.kind:
            self.stack.extend(reversed(node.parts))
            node = find(self.stack.pop())
        return node

    def push(self, node: Node[R]) -> None:
        self.stack.append(node)

    def __bool__(self) -> bool:
        return bool(self.stack)


def unify(a: Node[R], b: Node[R], reason: Callable[[str], R]) -> Node[R]:
    """Make two axes one; pin both, with `reason(what)`, where they can't be aligned.

    >>> leaf, pair = Node(6), product_of([Node(2), Node(3)])
    >>> find(unify(leaf, pair, str)).kind
    'product'
    """
    a, b = find(a), find(b)
    if a is b:
        return a
    if a.size != b.size:
        _give_up([a, b], reason(f"axes of {a.size} and {b.size} indices meet"))
        return a
    if a.size == 0:
        return a  # nothing to align; and an empty axis may lie inside another of its size
    if a.kind == "leaf":
        _become(a, b)
        return b
    if b.kind == "leaf":
        _become(b, a)
        return a
    if a.kind == "concat" and b.kind == "concat":
        aligned = _align_segments(a, b, reason)
    else:
        aligned = _align_factors(a, b, reason)
    if not aligned:
        _give_up([a, b], reason("two ways of looking at one axis can't be aligned"))
    return a


def _give_up(nodes: Sequence[Node[R]], reason: R) -> None:
    for node in nodes:
        pin(node, reason)


def _align_factors(a: Node[R], b: Node[R], reason: Callable[[str], R]) -> bool:
    left, right = _Parts(a, "product"), _Parts(b, "product")
    while left and right:
        x, y = left.pop(), right.pop()
        if x.size == y.size:
            unify(x, y, reason)
            continue
        if x.size < y.size:
            x, y, left, right = y, x, right, left
        pair = _split_outer(x, y.size, reason)
        if pair is None:
            return False
        unify(pair[0], y, reason)
        left.push(pair[1])
    return not left and not right


def _align_segments(a: Node[R], b: Node[R], reason: Callable[[str], R]) -> bool:
    left, right = _Parts(a, "concat"), _Parts(b, "concat")
    while left and right:
        x, y = left.pop(), right.pop()
        if x.size == y.size:
            unify(x, y, reason)
            continue
        if x.size < y.size:
            x, y, left, right = y, x, right, left
        pair = _cut(x, y.size)
        if pair is None:
            return False
        unify(pair[0], y, reason)
        left.push(pair[1])
    return not left and not right


def _split_outer(
    node: Node[R], outer: int, reason: Callable[[str], R]
) -> tuple[Node[R], Node[R]] | None:
    """Look at an axis as (outer × inner), or say that it can't be."""
    node = find(node)
    if outer == 0 or node.size % outer:
        return None
    inner = node.size // outer
    if outer == 1:
        return Node(1), node
    if inner == 1:
        return node, Node(1)
    if node.kind == "leaf":
        pair = Node[R](outer), Node[R](inner)
        _become(node, Node(node.size, "product", pair))
        return pair
    if node.kind == "product":
        pair = Node[R](outer), Node[R](inner)
        if not _align_factors(node, Node(node.size, "product", pair), reason):
            return None
        return find(pair[0]), find(pair[1])
    return _split_concat(node, inner, reason)


def _split_concat(
    node: Node[R], inner: int, reason: Callable[[str], R]
) -> tuple[Node[R], Node[R]] | None:
    """Factor a concatenation from the inside: every run of `inner` indices is made alike.

    A segment of several runs is split into (its runs × inner); small segments that fill
    one run together stand for that run. All runs are tied, which is sound and stricter.
    """
    parts = _Parts(node, "concat")
    outers: list[Node[R]] = []
    runs: list[Node[R]] = []
    pending: list[Node[R]] = []
    while parts:
        segment = parts.pop()
        filled = sum(p.size for p in pending)
        if not pending and segment.size % inner == 0:
            pair = _split_outer(segment, segment.size // inner, reason)
            if pair is None:
                return None
            outers.append(pair[0])
            runs.append(pair[1])
            continue
        if filled + segment.size > inner:
            halves = _cut(segment, inner - filled)
            if halves is None:
                return None
            segment = halves[0]
            parts.push(halves[1])
        pending.append(segment)
        if filled + segment.size == inner:
            outers.append(Node(1))
            runs.append(concat_of(pending))
            pending = []
    if pending:
        return None
    first = runs[0]
    for run in runs[1:]:
        first = unify(first, run, reason)
    outer = concat_of(outers)
    if all(o.size == 1 for o in outers):
        outer = Node(len(outers))
        pin(outer, reason("segments that a view has tied together"))
    # The concatenation itself now reads as the product, for everyone who holds it.
    if find(node) is node:
        node.kind, node.parts = "product", (outer, first)
    return outer, first


def _cut(node: Node[R], position: int) -> tuple[Node[R], Node[R]] | None:
    """Part an axis in two at a position strictly inside it, or say that it can't be."""
    node = find(node)
    if node.kind == "leaf":
        pair = Node[R](position), Node[R](node.size - position)
        _become(node, Node(node.size, "concat", pair))
        return pair
    if node.kind == "product":
        outer, *rest = node.parts
        inner = product_of(rest)
        if position % inner.size:
            return None
        pair = _cut(outer, position // inner.size)
        if pair is None:
            return None
        return product_of([pair[0], inner]), product_of([pair[1], inner])
    before: list[Node[R]] = []
    after = [*segments_of(node)][::-1]
    reached = 0
    while reached + after[-1].size <= position:
        reached += after[-1].size
        before.append(after.pop())
    if reached < position:
        pair = _cut(after.pop(), position - reached)
        if pair is None:
            return None
        before.append(pair[0])
        after.append(pair[1])
    after.reverse()
    node.parts = (*before, *after)  # the same, but no deeper after many cuts
    return concat_of(before), concat_of(after)


def split(node: Node[R], sizes: Sequence[int], reason: Callable[[str], R]) -> list[Node[R]]:
    """Look at an axis as factors of the given sizes, the outermost first.

    >>> [n.size for n in split(Node(24), [2, 1, 12], str)]
    [2, 1, 12]
    """
    fresh: list[Node[R]] = [Node(s) for s in sizes]
    wanted = [n for n in fresh if n.size != 1]
    if len(wanted) == 1:
        unify(wanted[0], node, reason)
    elif wanted:
        unify(Node(math.prod(sizes), "product", tuple(wanted)), node, reason)
    elif node.size != 1:
        pin(node, reason("a view changes the number of indices"))
    return [find(n) for n in fresh]


def take(node: Node[R], low: int, high: int, reason: Callable[[str], R]) -> Node[R]:
    """Return the range [low, high) of an axis, as far as it goes, as an axis of its own.

    >>> axis = Node(10)
    >>> take(axis, 0, 4, str).size, find(axis).kind
    (4, 'concat')
    """
    node = find(node)
    low, high = max(low, 0), min(high, node.size)
    if high <= low:
        return Node(0)
    for position, side in ((high, 0), (low, 1)):
        if 0 < position < node.size:
            pair = _cut(node, position)
            if pair is None:
                why = reason(f"the range {low}:{high} falls between the factors of the axis")
                pin(node, why)
                segment = Node[R](high - low)
                pin(segment, why)
                return segment
            node = find(pair[side])
    return node
