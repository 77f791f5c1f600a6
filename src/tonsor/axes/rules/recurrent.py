"""Recurrent layers: one hidden axis through all layers and directions of a module."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Node, Solver
from tonsor.types import Op

_GATES = {"aten.lstm": 4, "aten.gru": 3, "aten.rnn_tanh": 1, "aten.rnn_relu": 1}


@rule("aten.lstm", "aten.gru", "aten.rnn_tanh", "aten.rnn_relu")
def recurrent(s: Solver, op: Op) -> list[Axes]:
    """Weights are (gates × hidden); a layer reads what the one below it, both ways, wrote."""
    if op.overload == "data":
        message = "packed sequences hide their batch axis"
        raise NotImplementedError(message)
    x = s.of(op["input"])
    gates = _GATES[op.name]
    weights = [s.of(r) for r in op["params"]]
    per_cell = 4 if op["has_biases"] else 2
    per_cell += op.name == "aten.lstm" and len(weights) > per_cell and _projects(weights, per_cell)
    ways = 2 if op["bidirectional"] else 1
    states = op["hx"] if isinstance(op["hx"], tuple) else (op["hx"],)
    hidden = s.of(states[0])[-1]
    cell = s.of(states[-1])[-1]
    if op["params"] and per_cell == (4 if op["has_biases"] else 2):
        s.unify(hidden, cell)
    for state in states if len(x) == 3 else ():
        s.unify(s.of(state)[1], x[0 if op["batch_first"] else 1])
    below = x[-1]
    for layer in range(op["num_layers"]):
        for way in range(ways):
            start = (layer * ways + way) * per_cell
            w_ih, w_hh, *rest = weights[start : start + per_cell]
            s.unify(w_ih[1], below)
            s.unify(w_hh[1], hidden)
            biases = rest[: 2 if op["has_biases"] else 0]
            for weight in (w_ih, w_hh, *biases):
                _gated(s, weight[0], gates, cell)
            for projection in rest[len(biases) :]:
                s.unify(projection[0], hidden)
                s.unify(projection[1], cell)
        below = s.concat([hidden] * ways)
    lead = s.of(states[0])[:2] if len(s.of(states[0])) == 3 else []
    batch = list(x[:-1])
    return [[*batch, below], [*lead, hidden], [*lead, cell]][: len(op.outputs)]


def _gated(s: Solver, node: Node, gates: int, cell: Node) -> None:
    outer, inner = s.split(node, [gates, node.size // gates])
    s.positions(outer, "the gates of a recurrent cell")
    s.unify(inner, cell)


def _projects(weights: list[Axes], per_cell: int) -> bool:
    return len(weights[per_cell]) == 2 and weights[per_cell][0].size != weights[0][0].size
