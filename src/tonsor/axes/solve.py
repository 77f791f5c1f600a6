"""Walk the graph once and give every dimension of every tensor its axis."""

from __future__ import annotations

from collections.abc import Sequence

from tonsor.axes import algebra, rules
from tonsor.axes.naming import name_leaves
from tonsor.axes.registry import RULES
from tonsor.axes.solver import Axes, Node, Solver
from tonsor.axes.tree import freeze
from tonsor.types import Axis, Graph, Mix, Op, Solution


def has_rule(name: str) -> bool:
    """Whether an operator has a rule of its own."""
    return name in RULES


def solve(graph: Graph) -> Solution:
    """Follow every axis through the graph; pure, and needs no torch run."""
    s = Solver(graph)
    for path, value in graph.inputs:
        for node in s.of(value):
            s.pin(node, "input", f"an axis of the input '{path}'")
    for value in graph.tensors.values():
        s.of(value)
    for op in graph.ops:
        s.op = op
        _follow(s, op)
    s.op = None
    _pin_ends(s)
    return _freeze(s)


def _follow(s: Solver, op: Op) -> None:
    function = RULES.get(op.name)
    if function is None and op.pointwise:
        function = rules.pointwise
    if function is None:
        s.give_up(op, "unknown_op", f"no rule for the operator {op.name}")
        return
    try:
        outputs = function(s, op)
        _check(s, op, outputs)
    except Exception as error:  # noqa: BLE001  a rule that stumbles may pin, never fail the user
        what = f"the rule for {op.name} does not fit here ({type(error).__name__}: {error})"
        s.give_up(op, "unknown_op", what)
        return
    for value, axes in zip(op.outputs, outputs, strict=False):
        if value is not None and axes is not None:
            s.put(value, axes)
            s.producer[value] = op


def _check(s: Solver, op: Op, outputs: Sequence[Axes | None]) -> None:
    for i, axes in enumerate(outputs):
        if axes is not None and i < len(op.outputs) and op.outputs[i] is not None:
            sizes = tuple(n.size for n in axes)
            if sizes != s.out_shape(op, i):
                message = f"says {sizes} for a tensor of {s.out_shape(op, i)}"
                raise ValueError(message)


def _pin_ends(s: Solver) -> None:
    """Pin what leaves the model, what leaves the record, and what was never in it."""
    graph = s.graph
    for path, value in graph.outputs:
        for node in s.of(value):
            s.pin(node, "output", f"an axis of the model's {path.replace('.', ' ', 1)}")
    for op in graph.ops:
        values = [v for v in op.outputs if v is not None]
        if op.name == "aten.contiguous":
            continue  # asked for and not needed, which says nothing
        if values and not any(s.uses[v] for v in values):
            s.op = op
            for value in values:
                for node in s.of(value):
                    s.pin(node, "escape", "its result is used by no recorded operator")
    s.op = None
    for name in graph.unreached:
        for node in s.of(graph.tensors[name]):
            s.pin(node, "escape", f"'{name}' was not reached by the recorded run")


def _freeze(s: Solver) -> Solution:
    names = name_leaves(s)
    memo: dict[int, Axis] = {}
    pins = {}
    roles = {}
    for leaf in _all_leaves(s):
        name = names[id(leaf)]
        if leaf.reasons:
            pins[name] = leaf.reasons
        if leaf.roles:
            roles[name] = leaf.roles
    return Solution(
        graph=s.graph,
        axes={v: tuple(freeze(n, names, memo) for n in axes) for v, axes in s.axes.items()},
        pins=pins,
        roles=roles,
        mixes=tuple(
            Mix(m.op, tuple(freeze(n, names, memo) for n in m.nodes), m.what, m.approximate)
            for m in s.mixing
        ),
        sizes=tuple((op, arg, i, freeze(node, names, memo)) for op, arg, i, node in s.sizes),
    )


def _all_leaves(s: Solver) -> list[Node]:
    seen: dict[int, Node] = {}
    stack = [algebra.find(n) for axes in s.axes.values() for n in axes]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            stack.extend(algebra.find(p) for p in node.parts)
    return [n for n in seen.values() if n.kind == "leaf"]
