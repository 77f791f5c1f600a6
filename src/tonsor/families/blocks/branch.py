"""Branches that a model adds up itself: a module that returns nothing then leaves the shortcut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tonsor.drops import Drop
from tonsor.families.blocks.arrange import NotArrangedError, arrangement
from tonsor.families.blocks.block import Block
from tonsor.families.blocks.flow import Flow, State
from tonsor.families.blocks.shortcut import ADD
from tonsor.families.blocks.tree import Node, Tree
from tonsor.graph.spots import Spots
from tonsor.types import Op, Ref

_ZERO_STAYS_ZERO = frozenset({
    "aten.dropout", "aten.dropout_", "aten.mul", "aten.mul_", "aten.div", "aten.div_", "aten.view",
    "aten.reshape", "aten._unsafe_view", "aten.permute", "aten.transpose", "aten.contiguous",
    "aten.clone", "aten.to", "aten.alias", "aten.detach", "aten.slice", "aten.feature_dropout",
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
        """Whether a module adds several branches of one make, and so is only what holds them."""
        makes = []
        for index in adds:
            op = self.flow.graph.ops[index]
            if op.module == node.call.module:
                makes += [self.tree.likeness(n.call.module) for _, n, _ in self._sides(op)]
        return len(set(makes)) < len(makes)

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
        if op is None or not isinstance(ref, Ref):
            ref = None if op is None or "dropout" not in op.name else op.get("input")
        if op is None or not isinstance(ref, Ref):
            return None
        before = self.flow.before(ref.value, op.index)
        return before if len(self.flow.readers(before)) == 1 else None

    def _leads(self, base: State, ends: Iterable[State], stop: int) -> bool:
        """Whether one of some tensors is made from another."""
        wanted, reached = set(ends), {base}
        if base in wanted:
            return True
        for op in self.flow.graph.ops[:stop]:
            if any(self.flow.before(v, op.index) in reached for v in op.inputs):
                reached |= {self.flow.after(v, op.index) for v in op.outputs if v is not None}
        return bool(reached & wanted)

    def _block(self, op: Op, argument: str, node: Node, end: State) -> Block | None:
        call, flow = node.call, self.flow
        if len([o for o in flow.readers(end) if o.name not in ("aten.dropout",)]) > 1:
            return None
        maps = [p for p, s in flow.given(call).items() if flow.shape(s) == flow.shape(end)]
        gives = next(p for p, s in flow.returned(call).items() if s == end)
        if not maps:
            return None
        reason, drop = "", None
        try:
            arranged = arrangement(flow, call, end, "0")
            if self.tree.times[call.module] > 1:
                reason = f"it is called {self.tree.times[call.module]} times"
            else:
                drop = Drop(
                    name=call.module, kind="branch", modules=(call.module,), takes=maps[0],
                    gives=arranged, zeroed=(self.spots.spot(op.index, argument),),
                )  # fmt: skip
        except NotArrangedError as error:
            reason = str(error)
        return Block(
            name=call.module, kind="branch", modules=(call.module,), takes=maps[0], gives=gives,
            input_shape=flow.shape(end), output_shape=flow.shape(end),
            ops=tuple(range(call.first, call.stop)),
            parameters=self.tree.lost_with((call.module,)), drop=drop, reason=reason,
        )  # fmt: skip
