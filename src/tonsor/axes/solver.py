"""The state of solving, and the vocabulary in which rules are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

from tonsor.axes import algebra
from tonsor.types import Graph, Op, Pin, PinKind, Ref

Node: TypeAlias = algebra.Node[Pin]
Axes: TypeAlias = list[Node]


class Mixing:
    """A remembered operator that mixes along nodes (see `types.Mix`)."""

    __slots__ = ("approximate", "nodes", "op", "what")

    def __init__(self, op: int, nodes: list[Node], what: str, *, approximate: bool) -> None:
        self.op, self.nodes, self.what, self.approximate = op, nodes, what, approximate


class Solver:
    """Axes of every value seen so far, and the operator being looked at."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.op: Op | None = None
        self.axes: dict[int, Axes] = {}
        self.mixing: list[Mixing] = []
        self.sizes: list[tuple[int, str, int | None, Node]] = []
        self.producer: dict[int, Op] = {}
        self.uses: dict[int, int] = defaultdict(int)
        self.zeroed: set[int] = {
            v for v in graph.tensors.values() if graph.values[v].origin == "parameter"
        }
        for op in graph.ops:
            for value in op.inputs:
                self.uses[value] += 1
        for _, value in graph.outputs:
            self.uses[value] += 1

    # ------------------------------------------------------------ asking

    def of(self, ref: Ref | int) -> Axes:
        """Return the axes of a value; one never produced by an operator is a constant."""
        value = ref.value if isinstance(ref, Ref) else ref
        known = self.axes.get(value)
        if known is None:
            info = self.graph.values[value]
            known = self.axes[value] = [algebra.Node(s) for s in info.shape]
            if info.origin == "constant":
                what = "a constant made outside the recorded operators"
                for node in known:
                    self.pin(node, "data", f"{what} ({info.name})" if info.name else what)
        return known

    def axes_of(self, op: Op, *names: str) -> list[Axes]:
        """Return the axes of several tensor arguments at once; absent ones give []."""
        return [self.of(op[n]) if isinstance(op.get(n), Ref) else [] for n in names]

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return the recorded shape of a value."""
        return self.graph.values[ref.value].shape

    def out_shape(self, op: Op, which: int = 0) -> tuple[int, ...]:
        """Return the recorded shape of an output."""
        value = op.outputs[which]
        return () if value is None else self.graph.values[value].shape

    def is_zeroed(self, ref: Any) -> bool:
        """Whether a value is zero wherever it was cut: a parameter, or a plain view of one."""
        return isinstance(ref, Ref) and ref.value in self.zeroed

    # ------------------------------------------------------------ saying

    def why(self, kind: PinKind, detail: str) -> Pin:
        """Make a reason that names the operator being looked at."""
        if self.op is None:
            return Pin(kind, detail)
        return Pin(kind, detail, self.op.name, self.op.module, self.op.source)

    def pin(self, node: Node, kind: PinKind, detail: str) -> None:
        """Forbid cutting an axis."""
        algebra.pin(node, self.why(kind, detail))

    def unify(self, a: Node, b: Node) -> Node:
        """Say that two axes are one."""
        return algebra.unify(a, b, lambda what: self.why("conflict", what))

    def unify_all(self, a: Sequence[Node], b: Sequence[Node]) -> None:
        """Say that two lists of axes are the same, one by one."""
        for x, y in zip(a, b, strict=True):
            self.unify(x, y)

    def split(self, node: Node, sizes: Sequence[int]) -> Axes:
        """Look at an axis as factors."""
        return algebra.split(node, sizes, lambda what: self.why("conflict", what))

    def take(self, node: Node, low: int, high: int) -> Node:
        """Take a range of an axis."""
        return algebra.take(node, low, high, lambda what: self.why("conflict", what))

    def product(self, nodes: Sequence[Node]) -> Node:
        """Nest axes, the outermost first."""
        return algebra.product_of(nodes)

    def concat(self, nodes: Sequence[Node]) -> Node:
        """Put axes side by side."""
        return algebra.concat_of(nodes)

    def fresh(self, size: int) -> Node:
        """Make an axis about which nothing is known yet."""
        return algebra.Node(size)

    def note(self, node: Node, role: str) -> None:
        """Remember what part an axis plays."""
        algebra.note(node, role)

    def sized(self, op: Op, argument: str, place: int | None, node: Node) -> None:
        """Say that an integer argument of the operator is the size of an axis."""
        self.sizes.append((op.index, argument, place, node))

    def data(self, size: int, detail: str) -> Node:
        """Make an axis that comes from data, such as a spatial one, and can't be cut."""
        node: Node = algebra.Node(size)
        self.pin(node, "data", detail)
        return node

    def positions(self, node: Node, detail: str) -> None:
        """Pin an axis along which positions carry meaning."""
        self.pin(node, "position", detail)

    def mix(self, nodes: Sequence[Node], what: str, *, approximate: bool) -> None:
        """Say that the operator mixes along axes for which zero may not be neutral."""
        assert self.op is not None
        kept = [n for n in nodes if n.size > 1]
        if kept:
            self.mixing.append(Mixing(self.op.index, kept, what, approximate=approximate))

    def contract(self, a: Any, i: int, b: Any, j: int) -> None:
        """Contract dimension i of `a` with dimension j of `b` (both are Refs)."""
        node = self.unify(self.of(a)[i], self.of(b)[j])
        if not (self.is_zeroed(a) or self.is_zeroed(b)):
            self.mix([node], "a product of two activations", approximate=False)

    def broadcast(self, op: Op, refs: Sequence[Ref], shape: Sequence[int]) -> Axes:
        """Align tensors from the right, as pointwise operators do, and return the result."""
        result: list[Node | None] = [None] * len(shape)
        for ref in refs:
            axes = self.of(ref)
            offset = len(shape) - len(axes)
            if offset < 0:
                continue
            for i, node in enumerate(axes):
                if node.size != shape[i + offset]:
                    continue  # a dimension of one, spread over the others
                seen = result[i + offset]
                result[i + offset] = node if seen is None else self.unify(seen, node)
        return [algebra.Node(s) if n is None else n for n, s in zip(result, shape, strict=True)]

    def give_up(self, op: Op, kind: PinKind, detail: str) -> None:
        """Pin every axis that goes into an operator or comes out of it."""
        for value in op.inputs:
            for node in self.of(value):
                self.pin(node, kind, detail)
        for i, value in enumerate(op.outputs):
            if value is not None:
                fresh: Axes = [algebra.Node(s) for s in self.out_shape(op, i)]
                for node in fresh:
                    self.pin(node, kind, detail)
                self.put(value, fresh)

    def put(self, value: int, axes: Sequence[Node]) -> None:
        """Give a value its axes; an operator in place ties them to those it had."""
        known = self.axes.get(value)
        if known is None and self.graph.values[value].origin in ("parameter", "buffer", "input"):
            known = self.of(value)
        if known is None:
            self.axes[value] = list(axes)
        else:
            self.unify_all(known, axes)
