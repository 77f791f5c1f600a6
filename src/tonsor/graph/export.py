"""The second front door: read a graph off a program of `torch.export`.

The operators are the same ones that the recorder sees, so the same rules apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from tonsor.errors import TraceError
from tonsor.graph.clone import named_tensors
from tonsor.graph.record import bind, pointwise_tag
from tonsor.types import Graph, Op, Origin, Ref, Source, Value

_ORIGIN: dict[InputKind, Origin] = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.USER_INPUT: "input",
}
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>.*)'
)


def read_export(program: ExportedProgram, model: nn.Module | None = None) -> Graph:
    """Turn an exported program into the graph that the solver reads.

    An exported program keeps one name of a tied tensor; `model` gives the others.
    """
    reader = _Reader(program)
    for node in program.graph.nodes:
        reader.read(node)
    if model is not None:
        reader.name_ties(model)
    return reader.close()


class _Reader:
    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.specs = {
            s.arg.name: s for s in program.graph_signature.input_specs if hasattr(s.arg, "name")
        }
        self.values: list[Value] = []
        self.ops: list[Op] = []
        self.of: dict[fx.Node, int | tuple[int | None, ...] | None] = {}
        self.tensors: dict[str, int] = {}
        self.inputs: list[tuple[str, int]] = []
        self.outputs: list[tuple[str, int]] = []

    def read(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._placeholder(node)
        elif node.op == "get_attr":
            self.of[node] = self._value(node.meta.get("val"), "constant", str(node.target))
        elif node.op == "output":
            self._output(node)
        elif node.op == "call_function":
            self._call(node)

    def _placeholder(self, node: fx.Node) -> None:
        spec = self.specs[node.name]
        origin = _ORIGIN.get(spec.kind, "constant")
        value = self._value(node.meta.get("val"), origin, spec.target or node.name)
        self.of[node] = value
        if value is not None and spec.target and origin in ("parameter", "buffer"):
            self.tensors[spec.target] = value
        elif value is not None and origin == "input":
            self.inputs.append((node.name, value))

    def _output(self, node: fx.Node) -> None:
        for i, item in enumerate(_nodes(node.args)):
            value = self.of.get(item)
            if isinstance(value, int):
                self.outputs.append((f"output.{i}", value))

    def _call(self, node: fx.Node) -> None:
        if getattr(node.target, "__name__", "") == "getitem":
            source, index = node.args
            whole = self.of[source] if isinstance(source, fx.Node) else None
            assert isinstance(whole, tuple)
            assert isinstance(index, int)
            self.of[node] = whole[index]
            return
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            self._inline(node)
            return
        if not isinstance(node.target, torch._ops.OpOverload):
            message = f"the exported program calls {node.target}, which can't be followed"
            raise TraceError(message)
        result = node.meta.get("val")
        if isinstance(result, (tuple, list)):
            made = tuple(self._value(v, "op", "") for v in result)
            self.of[node] = made
        else:
            made = (self._value(result, "op", ""),)
            self.of[node] = made[0]
        args = bind(node.target, node.args, dict(node.kwargs))
        made = self._in_place(node, args, made)
        self.ops.append(
            Op(
                index=len(self.ops),
                name=str(node.target.overloadpacket),
                overload=node.target._overloadname,
                args={k: self._argument(v) for k, v in args.items()},
                outputs=made,
                module=_module_path(node),
                source=_source(node),
                pointwise=pointwise_tag(node.target),
            )
        )

    def _in_place(
        self, node: fx.Node, args: dict[str, Any], made: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Let the result of an operator that writes into its argument be that argument."""
        for argument in node.target._schema.arguments:  # type: ignore[union-attr]
            written = argument.alias_info is not None and argument.alias_info.is_write
            target = args.get(argument.name)
            if written and isinstance(target, fx.Node) and len(made) == 1:
                value = self.of.get(target)
                if isinstance(value, int):
                    self.of[node] = value
                    return (value,)
        return made

    def _inline(self, node: fx.Node) -> None:
        """Read the body of a block that only switches a mode, such as no_grad."""
        bodies = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
        if len(bodies) != 1 or not str(node.target).startswith("wrap"):
            message = f"the exported program calls {node.target}, which can't be followed"
            raise TraceError(message)
        body = getattr(self.program.graph_module, str(bodies[0].target))
        given = iter(node.args[node.args.index(bodies[0]) + 1 :])
        for inner in body.graph.nodes:
            if inner.op == "placeholder":
                outer = next(given)
                self.of[inner] = self.of[outer] if isinstance(outer, fx.Node) else None
            elif inner.op == "output":
                results = tuple(self.of.get(n) for n in _nodes(inner.args))
                self.of[node] = tuple(r if isinstance(r, int) else None for r in results)
            else:
                self.read(inner)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            found = self.of.get(value)
            return Ref(found) if isinstance(found, int) else None
        if isinstance(value, (list, tuple)):
            return tuple(self._argument(v) for v in value)
        return value

    def _value(self, tensor: Any, origin: Origin, name: str) -> int | None:
        if not isinstance(tensor, Tensor):
            return None
        index = len(self.values)
        shape = tuple(int(s) for s in tensor.shape)
        self.values.append(Value(index, shape, str(tensor.dtype), origin, name))
        return index

    def name_ties(self, model: nn.Module) -> None:
        """Add the names that tied tensors have in the model, in the model's order."""
        tensors = list(named_tensors(model))
        values = {id(t): self.tensors[n] for n, t in tensors if n in self.tensors}
        self.tensors = {n: values[id(t)] for n, t in tensors if id(t) in values}

    def close(self) -> Graph:
        read = {v for op in self.ops for v in op.inputs} | {v for _, v in self.outputs}
        unreached = tuple(
            n for n, v in self.tensors.items()
            if v not in read and self.values[v].origin == "parameter"
        )  # fmt: skip
        return Graph(
            ops=tuple(self.ops),
            values=tuple(self.values),
            tensors=self.tensors,
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            unreached=unreached,
            module_types=dict(_module_types(self.program)),
            ran="export",
        )


def _nodes(tree: Any) -> Iterator[fx.Node]:
    if isinstance(tree, fx.Node):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _nodes(item)


def _module_path(node: fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return re.sub(r"^L\['self'\]\.?|^self\.?", "", stack[-1][0]) if stack else ""


def _module_types(program: ExportedProgram) -> Iterator[tuple[str, str]]:
    for node in program.graph.nodes:
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            name = kind if isinstance(kind, str) else kind.__qualname__
            yield re.sub(r"^L\['self'\]\.?|^self\.?", "", path), name.rpartition(".")[2]


def _source(node: fx.Node) -> Source | None:
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    for found in reversed(frames):
        if "/torch/nn/" not in found["file"]:
            return Source(
                found["file"], int(found["line"]), found["function"], found["code"].strip()
            )
    return None
