"""A graph as text that stays the same: for reading, for diffs, for golden files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch

from tonsor.types import Graph, Op, Ref, Value

# These depend on where the model ran and say nothing of what it computes.
_PLACE = {"device", "layout", "pin_memory", "generator", "non_blocking", "cudnn_enabled"}


def graph_text(graph: Graph) -> str:
    """Write a graph with one operator a line; nothing in it depends on the machine.

    >>> from tonsor.graph.trace import trace
    >>> print(graph_text(trace(torch.nn.Linear(8, 4), torch.randn(2, 8))))
    Graph of 1 operator (fake)
    input 0 = %2[2,8]
    0  -  %3[2,4] = linear(%2, weight, bias)
    output = %3[2,4]
    """
    count = len(graph.ops)
    lines = [f"Graph of {count} operator{'' if count == 1 else 's'} ({graph.ran})"]
    lines += [f"input {path} = {_declared(graph, v)}" for path, v in graph.inputs]
    lines += [f"constant {_constant(graph, v)}" for v in graph.values if v.origin == "constant"]
    lines += [_op_text(graph, op) for op in graph.ops]
    lines += [f"{path} = {_declared(graph, v)}" for path, v in graph.outputs]
    if graph.unreached:
        lines.append(f"unreached: {', '.join(graph.unreached)}")
    return "\n".join(lines)


def _op_text(graph: Graph, op: Op) -> str:
    outputs = ", ".join("_" if v is None else _declared(graph, v) for v in op.outputs)
    arguments = ", ".join(_arguments(graph, op))
    return (
        f"{op.index}  {op.module or '-'}  {outputs} = {op.name.removeprefix('aten.')}({arguments})"
    )


def _arguments(graph: Graph, op: Op) -> Iterator[str]:
    """Yield tensors as they come, and other arguments where they differ from their default."""
    schema = _schema(op.name, op.overload)
    for name in dict.fromkeys((*(n for n in schema if n in op.args), *op.args)):
        value = op.args[name]
        if isinstance(value, Ref):
            yield _named(graph, value.value)
        elif value is not None and name not in _PLACE and value != schema.get(name):
            yield f"{name}={_plain(graph, value)}"


def _plain(graph: Graph, value: Any) -> str:
    if isinstance(value, Ref):
        return _named(graph, value.value)
    if isinstance(value, tuple):
        return f"[{', '.join(_plain(graph, v) for v in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k}: {_plain(graph, v)}' for k, v in value.items())}}}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).removeprefix("torch.")


def _named(graph: Graph, value: int) -> str:
    return graph.name_of.get(value, f"%{value}")


def _declared(graph: Graph, value: int) -> str:
    """Write a tensor with its shape, and its type where that is not the usual one."""
    found = graph.values[value]
    kind = found.dtype.removeprefix("torch.")
    shape = ",".join(map(str, found.shape))
    return f"{_named(graph, value)}[{shape}]" + ("" if kind == "float32" else f":{kind}")


def _constant(graph: Graph, value: Value) -> str:
    return _declared(graph, value.id) + (f" ({value.name})" if value.name else "")


@lru_cache(maxsize=4096)
def _schema(name: str, overload: str) -> Mapping[str, Any]:
    """Return an operator's arguments in order, each with its default or None."""
    found: Any = torch.ops
    try:
        for step in (*name.split("."), overload or "default"):
            found = getattr(found, step)
        arguments = found._schema.arguments
    except (AttributeError, RuntimeError):
        return {}  # recorded by a process that knew more operators than this one
    return {a.name: _tuples(a.default_value) for a in arguments}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
