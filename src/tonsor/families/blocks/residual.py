"""Blocks around which a shortcut leads: the branch goes, the shortcut stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from tonsor.drops import Drop
from tonsor.families.blocks.alone import entangled
from tonsor.families.blocks.arrange import NotArrangedError, arrangement
from tonsor.families.blocks.block import Block, Path, shape_text
from tonsor.families.blocks.flow import Flow, State
from tonsor.families.blocks.positive import positive
from tonsor.families.blocks.shortcut import ACTIVATIONS, ADD, Route, Step, Walk
from tonsor.families.blocks.tree import Node, Tree
from tonsor.graph.spots import Spots
from tonsor.types import Call, Op, Ref

_IDEMPOTENT = ("relu", "relu6")  # what they have left as it is once, they leave so again


class Residuals:
    """Find the blocks of one run that have a shortcut."""

    def __init__(self, flow: Flow, tree: Tree, spots: Spots) -> None:
        self.flow = flow
        self.tree = tree
        self.spots = spots
        self._routes: dict[int, tuple[Path, Route] | None] = {}

    def route(self, node: Node) -> tuple[Path, Route] | None:
        """Return where the result of a call is, and the way around its branches to it."""
        key = id(node)
        if key not in self._routes:
            self._routes[key] = self._find(node)
        return self._routes[key]

    def _find(self, node: Node) -> tuple[Path, Route] | None:
        call = node.call
        if not self.tree.parameters(call.module) or call.first == call.stop:
            return None
        inner = [n.call for n in node.below()]
        walk = Walk(self.flow, call, inner, {c.module: self.tree.light(c.module) for c in inner})
        for place, end in self._results(call):
            found = walk.route(end)
            if found is not None and found.added:
                return place, found
        return None

    def _results(self, call: Call) -> Sequence[tuple[Path, State]]:
        """Return what a call has made and somebody uses."""
        given = set(self.flow.given(call).values())
        return [
            (path, state)
            for path, state in self.flow.returned(call).items()
            if state not in given and self.flow.used_after(state, call.stop)
        ]

    def is_stack(self, node: Node) -> bool:
        """Whether a call is only what holds the blocks: one of the same make after another."""
        mine = self.route(node)
        assert mine is not None
        held = self.tree.parameters(node.call.module)
        wraps = any(
            route.adds == mine[1].adds and self.tree.parameters(kid.call.module) == held
            for kid, route in self._largest(node)
        )
        return wraps or self._holds_many(node)

    def _holds_many(self, node: Node) -> bool:
        kids = [kid for kid, _ in self._largest(node)]
        names = [kid.call.module for kid in kids]
        return any(self.tree.alike(a, b) for a, b in combinations(names, 2)) or any(
            map(self._holds_many, kids)
        )

    def _largest(self, node: Node) -> Sequence[tuple[Node, Route]]:
        found: list[tuple[Node, Route]] = []
        for kid in node.inner:
            own = self.route(kid)
            found += [(kid, own[1])] if own is not None else self._largest(kid)
        return found

    def block(self, node: Node) -> Block:
        """Return the block that a call is; it has a route."""
        call, found = node.call, self.route(node)
        assert found is not None
        gives, route = found
        flow = self.flow
        end = self.flow.returned(call)[gives]
        steps = self._kept(route)
        stay = tuple(s.stays for s in steps if s.module)
        kept_ops = {i for s in steps for i in range(s.first, s.stop)}
        name, drop = call.module, None
        lost = self.tree.lost_with((name,), stay)
        reason = entangled(flow, (call,), end, lost)
        try:
            arranged = arrangement(flow, call, end, "x")
            if self.tree.times[name] > 1:
                reason = f"it is called {self.tree.times[name]} times, so it is several layers"
            elif not reason:
                drop = Drop(
                    name=name, kind="residual", modules=(name,), takes=route.takes, gives=arranged,
                    through=tuple(s.stays if s.module else f"{s.stays}()" for s in steps),
                    zeroed=tuple(self.spots.spot(a.op, a.argument) for a in route.added),
                )  # fmt: skip
        except NotArrangedError as error:
            reason = str(error)
        return Block(
            name=name, kind="residual", modules=(name,), takes=route.takes, gives=gives,
            input_shape=flow.shape(route.start), output_shape=flow.shape(end),
            ops=tuple(i for i in range(call.first, call.stop) if i not in kept_ops),
            parameters=lost, drop=drop, reason=reason,
        )  # fmt: skip

    def _kept(self, route: Route) -> tuple[Step, ...]:
        """Leave out activations that do nothing to what the shortcut brings."""
        kept: list[Step] = []
        bare, maker = positive(self.flow, route.start), self.flow.maker(route.start)
        last = "" if maker is None else ACTIVATIONS.get(maker.name, "")
        for step in route.steps:
            if not step.module and (
                (step.stays == "relu" and bare)
                or (step.stays == last and step.stays in _IDEMPOTENT)
            ):
                continue
            kept.append(step)
            last = "" if step.module else step.stays
            bare = last in ("relu", "relu6", "sigmoid")
        return tuple(kept)

    def transition(self, node: Node) -> Block | None:
        """Return what adds a branch of its own to something else than what went in, if it does."""
        call = node.call
        floats = {p: s for p, s in self.flow.given(call).items() if self._is_map(s)}
        results = self._results(call)
        if not floats or len(results) != 1 or not self._adds(call, floats.values()):
            return None
        (gives, end), takes = results[0], next(iter(floats))
        before, after = self.flow.shape(floats[takes]), self.flow.shape(end)
        reason = (
            f"it turns {shape_text(before)} into {shape_text(after)}, so nothing that goes in can "
            "stand for what comes out"
            if all(self.flow.shape(s) != after for s in floats.values())
            else "no way around its branches leads back to what goes in"
        )
        return Block(
            name=call.module, kind="residual", modules=(call.module,), takes=takes, gives=gives,
            input_shape=before, output_shape=after, ops=tuple(range(call.first, call.stop)),
            parameters=self.tree.lost_with((call.module,)), reason=reason,
        )  # fmt: skip

    def _is_map(self, state: State) -> bool:
        value = self.flow.graph.values[state.value]
        return len(value.shape) > 1 and "float" in value.dtype

    def _adds(self, call: Call, given: Iterable[State]) -> bool:
        """Whether the module itself adds up two things that both come from what went in."""
        reached = self.flow.reached(given, call.first, call.stop)
        return any(
            op.module == call.module and op.name in ADD and self._both(op, reached)
            for op in self.flow.graph.ops[call.first : call.stop]
        )

    def _both(self, op: Op, reached: set[State]) -> bool:
        sides = [op.get("self"), op.get("other")]
        return (
            all(
                isinstance(s, Ref) and self.flow.before(s.value, op.index) in reached for s in sides
            )
            and len({self.flow.graph.values[s.value].shape for s in sides if isinstance(s, Ref)})
            == 1
        )
