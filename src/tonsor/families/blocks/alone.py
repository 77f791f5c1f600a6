"""Whether anything else in the model has to do with what is inside of a block."""

from __future__ import annotations

from collections.abc import Sequence

from tonsor.families.blocks.flow import Flow, State, tensors_at
from tonsor.types import Call


def entangled(flow: Flow, calls: Sequence[Call], end: State, lost: Sequence[str]) -> str:
    """Say what the rest of the model would miss besides the result, or nothing.

    `lost` are the parameters that vanish with the modules of these calls, and `end` is what the
    last of them hands on.
    """
    graph, stop = flow.graph, calls[-1].stop
    inside = {i for c in calls for i in range(c.first, c.stop)}

    def reader(value: int) -> str | None:
        index = next((i for i in flow.uses(value) if i not in inside), None)
        if index is None:
            return None
        module = graph.ops[index].module
        return f"'{module}'" if module else "the model itself"

    for name in lost:
        other = reader(graph.tensors[name])
        if other is not None:
            return f"its '{name}' is read by {other} too"
    returned = {value for _, value in tensors_at(calls[-1].out)}
    for index in sorted(inside):
        for value in {*graph.ops[index].outputs} - returned - {*graph.ops[index].inputs}:
            other = None if value is None else reader(value)
            if other is not None:
                return f"what it computes inside is read by {other} too"
    for state in flow.given(calls[0]).values():
        now = flow.before(state.value, stop)
        if now not in (state, end) and flow.used_after(now, stop):
            return "it writes into what it is given, which is used again after it"
    return ""
