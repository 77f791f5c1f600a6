"""Branches that a model adds up itself: a module that returns nothing then leaves the shortcut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from tonsor.drops import Drop
from tonsor.families.blocks.alone import entangled
from tonsor.families.blocks.arrange import NotArrangedError, arrangement
from tonsor.families.blocks.block import Block
from tonsor.families.blocks.flow import Flow, State
from tonsor.families.blocks.shortcut import ADD
from tonsor.families.blocks.tree import Node, Tree
from tonsor.graph.spots import Spots
from tonsor.types import Call, Op, Ref

_ZERO_STAYS_ZERO = frozenset({
    "aten.dropout", "aten.dropout_", "aten.mul", "aten.mul_", "aten.div", "aten.div_", "aten.view",
    "aten.reshape", "aten._unsafe_view", "aten.permute", "aten.transpose", "aten.contiguous",
    "aten.clone", "aten.to", "aten.alias", "aten.detach", "aten.slice", "aten.feature_dropout",
    "aten.neg", "aten.relu", "aten.relu_", "aten.tanh", "aten.silu", "aten.gelu",
})  # fmt: skip


class Branches:
    """Find modules whose result is only ever added to what they were made from."""

    def __init__(self, flow: Flow, tree: Tree, spots: Spots) -> None:
        self.flow = flow
        self.tree = tree
        self.spots = spots
        self.made: dict[State, list[Node]] = {}
        for node in tree.root.below():
            if tree.parameters(node.call.module):
                for state in flow.returned(node.call).values():
                    self.made.setdefault(state, []).append(node)

    def repeated(self, node: Node, adds: Iterable[int]) -> bool:
        """Whether a module adds each make of branch several times, and so only holds them.

        One of several of a kind in a list is a layer all the same.
        """
        if self.tree.is_listed(node.call.module):
            return False
        makes: Counter[tuple[object, ...]] = Counter()
        for index in adds:
            op = self.flow.graph.ops[index]
            if op.module == node.call.module:
                makes.update(self._make(n) for _, n, _ in self._sides(op))
        return min(makes.values(), default=0) > 1

    def _make(self, node: Node) -> tuple[object, ...]:
        """Return what a branch is made of: not only the norm or scale that it ends with."""
        mine = self.tree.likeness(node.call.module)
        given = list(self.flow.given(node.call).values())
        if not self.tree.light(node.call.module) or len(given) != 1:
            return mine
        return (*mine, *(self._make(n) for n in self.made.get(given[0], ())[:1]))

    def blocks(self, adds: Iterable[int]) -> Iterator[Block]:
        """Yield the branches that these operators add."""
        for index in adds:
            op = self.flow.graph.ops[index]
            for argument, node, end in self._sides(op):
                found = self._block(op, argument, node, end)
                if found is not None:
                    yield found
                    break

    def _sides(self, op: Op) -> Iterator[tuple[str, Node, State]]:
        """Yield the arguments of an addition that a module makes from the other one."""
        for argument, other in (("other", "self"), ("self", "other")):
            mine, its = op.get(argument), op.get(other)
            if op.name not in ADD or not (isinstance(mine, Ref) and isinstance(its, Ref)):
                continue
            base = self.flow.before(its.value, op.index)
            end: State | None = self.flow.before(mine.value, op.index)
            while end is not None and end not in self.made:
                end = self._before(end)
            if end is None:
                continue
            for node in self.made[end]:
                given = self.flow.given(node.call).values()
                if node.call.module != op.module and self._leads(base, given, op.index):
                    yield argument, node, end
                    break

    def _before(self, state: State) -> State | None:
        """Go back over an operator that makes zeros of zeros, if nobody else reads its input."""
        op = self.flow.maker(state)
        ref = None if op is None or op.name not in _ZERO_STAYS_ZERO else op.get("self")
        if op is not None and op.name == "aten.mul" and isinstance(ref, Ref):
            scale = self.flow.before(ref.value, op.index)  # a parameter may come first
            ref = op.get("other") if self.flow.maker(scale) is None else ref
        if op is None or not isinstance(ref, Ref):
            ref = None if op is None or "dropout" not in op.name else op.get("input")
        if op is None or not isinstance(ref, Ref):
            return None
        before = self.flow.before(ref.value, op.index)
        return before if len(self.flow.readers(before)) == 1 else None

    def _leads(self, base: State, ends: Iterable[State], stop: int) -> bool:
        """Whether one of some tensors is made from another."""
        wanted = set(ends)
        return base in wanted or bool(self.flow.reached([base], 0, stop) & wanted)

    def _parts(self, base: State, node: Node, end: State) -> list[tuple[Node, State]]:
        """Return what a branch is run by: what a norm or scale at its end is about goes with it.

        Nothing if that can't be told.
        """
        parts = [(node, end)]
        while self.tree.light(node.call.module):
            given = list(self.flow.given(node.call).values())
            if given == [base]:
                return parts
            state: State | None = given[0] if len(given) == 1 else None
            if state is None or self.flow.shape(state) != self.flow.shape(parts[0][1]):
                return []
            while state is not None and state not in self.made:
                state = self._before(state)
            if state is None or not self._for_one(state, node.call):
                return []
            node = self.made[state][0]
            if not self._leads(base, self.flow.given(node.call).values(), node.call.first):
                return []
            parts.insert(0, (node, state))
        return parts

    def _for_one(self, state: State, call: Call) -> bool:
        """Whether only one call reads a tensor, if not a dropout before it."""
        inside = range(call.first, call.stop)
        return all(o.index in inside or "dropout" in o.name for o in self.flow.readers(state))

    def _block(self, op: Op, argument: str, node: Node, end: State) -> Block | None:
        flow, base = self.flow, op["self" if argument == "other" else "other"]
        parts = self._parts(flow.before(base.value, op.index), node, end)
        after = [o for o in flow.readers(end) if o.index >= node.call.stop]
        if not parts or len([o for o in after if "dropout" not in o.name]) > 1:
            return None
        (first, middle), calls = parts[0], [n.call for n, _ in parts]
        maps = [p for p, s in flow.given(first.call).items() if flow.shape(s) == flow.shape(end)]
        gives = next(p for p, s in flow.returned(node.call).items() if s == end)
        if not maps:
            return None
        modules = tuple(c.module for c in calls)
        lost, drop, name = self.tree.lost_with(modules), None, modules[0]
        reason = entangled(flow, calls, end, lost)
        times = max(self.tree.times[m] for m in modules)
        try:
            arranged = arrangement(flow, first.call, middle, "0")
            if times > 1:
                reason = f"it is called {times} times, so it is several layers"
            elif flow.is_returned(end):
                reason = "the model returns what it adds, too"
            elif not reason:
                drop = Drop(
                    name=name, kind="branch", modules=modules, takes=maps[0],
                    gives=arranged, zeroed=(self.spots.spot(op.index, argument),),
                )  # fmt: skip
        except NotArrangedError as error:
            reason = str(error)
        return Block(
            name=name, kind="branch", modules=modules, takes=maps[0], gives=gives,
            input_shape=flow.shape(end), output_shape=flow.shape(end),
            ops=tuple(i for c in calls for i in range(c.first, c.stop)),
            parameters=lost, drop=drop, reason=reason,
        )  # fmt: skip
