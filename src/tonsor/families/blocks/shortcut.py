"""Follow a block's result back to what went in, along additions: the way around its branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tonsor.families.blocks.block import Path
from tonsor.families.blocks.flow import Flow, State
from tonsor.types import Call, Op, Ref

ADD = ("aten.add", "aten.add_")
_NOTHING = frozenset({
    "aten.dropout", "aten.dropout_", "aten.contiguous", "aten.clone", "aten.detach", "aten.alias",
    "aten.to", "aten._to_copy", "aten.feature_dropout", "aten.lift_fresh",
})  # fmt: skip
ACTIVATIONS = {
    "aten.relu": "relu", "aten.relu_": "relu", "aten.silu": "silu", "aten.silu_": "silu",
    "aten.gelu": "gelu", "aten.tanh": "tanh", "aten.sigmoid": "sigmoid", "aten.relu6": "relu6",
    "aten.hardswish": "hardswish", "aten.hardswish_": "hardswish",
}  # fmt: skip
"""What may follow an addition and needs no parameter: operators, by their functional names."""


@dataclass(frozen=True, slots=True)
class Added:
    """An addition, and which of its arguments the branch comes in by."""

    op: int
    argument: str


@dataclass(frozen=True, slots=True)
class Step:
    """What the shortcut passes besides additions: a module, or an activation."""

    stays: str
    module: bool
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Route:
    """From the tensor at `takes` to the result, the first step first."""

    takes: Path
    start: State
    added: tuple[Added, ...]
    steps: tuple[Step, ...]

    @property
    def adds(self) -> frozenset[int]:
        """The operators that add branches."""
        return frozenset(a.op for a in self.added)


class Walk:
    """Look for the way around the branches of one call."""

    def __init__(
        self, flow: Flow, call: Call, inner: Sequence[Call], light: Mapping[str, bool]
    ) -> None:
        self.flow = flow
        self.call = call
        self.starts = {state: path for path, state in reversed(flow.given(call).items())}
        self.light = light
        self.reached = flow.reached(self.starts, call.first, call.stop)
        self.known: dict[State, Route | None] = {}
        self.made_by: dict[State, list[tuple[Call, State]]] = {}
        for other in inner:
            self._note(other)

    def _note(self, other: Call) -> None:
        """Remember a module that turns one tensor into another of its shape."""
        given, out = self.flow.given(other), self.flow.returned(other)
        plain = list(given) == [(0,)] and list(out) == [()]
        if plain and self.light.get(other.module, False):
            (start,), (end,) = given.values(), out.values()
            if start != end and self.flow.shape(start) == self.flow.shape(end):
                self.made_by.setdefault(end, []).append((other, start))

    def route(self, end: State) -> Route | None:
        """Return the way that adds most branches around the fewest steps, if there is one."""
        if end in self.starts:
            return Route(self.starts[end], end, (), ())
        if end not in self.known:
            self.known[end] = None  # what leads back to itself leads nowhere
            self.known[end] = self._found(end)
        return self.known[end]

    def _found(self, end: State) -> Route | None:
        op = self.flow.maker(end)
        if op is None or not self.call.first <= op.index < self.call.stop:
            return None
        if op.name in ADD:
            return self._around(op, end)
        if op.name in _NOTHING or self._keeps_all(op):
            return self._through(op, None)
        if op.name in ACTIVATIONS:
            return self._through(op, Step(ACTIVATIONS[op.name], False, op.index, op.index + 1))
        for module, start in self.made_by.get(end, ()):
            before = self.route(start)
            if before is not None:
                step = Step(module.module, True, module.first, module.stop)
                return Route(before.takes, before.start, before.added, (*before.steps, step))
        return None

    def _keeps_all(self, op: Op) -> bool:
        """Whether an operator only arranges, and the shape is the same again."""
        if op.name not in ("aten.view", "aten.reshape", "aten._unsafe_view", "aten.expand"):
            return False
        value, out = _operand(op, "self"), op.outputs[0]
        values = self.flow.graph.values
        return value is not None and out is not None and values[value].shape == values[out].shape

    def _through(self, op: Op, step: Step | None) -> Route | None:
        value = _operand(op, "self") if "self" in op.args else _operand(op, "input")
        before = None if value is None else self.route(self.flow.before(value, op.index))
        if before is None or step is None:
            return before
        return Route(before.takes, before.start, before.added, (*before.steps, step))

    def _around(self, op: Op, end: State) -> Route | None:
        """Go on along one of the two that are added; what else is added is the branch."""
        found = []
        for argument, branch in (("self", "other"), ("other", "self")):
            value, added = _operand(op, argument), _operand(op, branch)
            if value is None or added is None or (branch == "self" and op.get("alpha", 1) != 1):
                continue
            state = self.flow.before(value, op.index)
            if self.flow.shape(state) != self.flow.shape(end):
                continue
            before = self.route(state)
            if before is not None and self.flow.before(added, op.index) in self.reached:
                way = (*before.added, Added(op.index, branch))
                found.append(Route(before.takes, before.start, way, before.steps))
        return min(found, key=lambda r: (len(r.steps), -len(r.added)), default=None)


def _operand(op: Op, name: str) -> int | None:
    ref = op.get(name)
    return ref.value if isinstance(ref, Ref) else None
