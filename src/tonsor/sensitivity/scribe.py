"""Writing the script of a model down, from a run on shapes alone."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves, tree_map

from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Recorder, bind
from tonsor.graph.trace import prepared, record_run
from tonsor.sensitivity.script import Line, Same, Script, plain
from tonsor.surgery.late import written
from tonsor.types import Graph, Ref

_RANDOM = torch.Tag.nondeterministic_seeded


def write_script(model: nn.Module, inputs: Inputs) -> Script | None:
    """Run a model on shapes alone; None where values, too, decide what it does."""
    try:
        with prepared(model, inputs, fake=True) as (copy, given, run):
            reader = _Reader(run)
            recorder = Recorder(copy, execute=reader.execute, lines=False)
            graph = record_run(recorder, copy, given, "fake")
            return _script(graph, recorder, reader)
    except Exception:  # noqa: BLE001  the plain way is open to every model
        return None


class _Reader:
    """Run the operators, and keep of each what a graph does not say.

    torch detaches what `zeros` and the like have made when it is a fake, which it does to no real
    tensor; so these calls are no lines of the script, and in `echoes` instead.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.lines: list[Line] = []
        self.written: list[list[Tensor]] = []
        self.drawn: set[int] = set()
        self.echoes: set[int] = set()
        self.fresh: Any = None

    def execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = plain(args, kwargs)
        if func is torch.ops.aten.detach.default and args[0] is self.fresh:
            self.echoes.add(index)
        self.written.append(written(func, args, kwargs))
        if _draws(func, args, kwargs):
            self.drawn.add(index)
        is_new = _makes(func, args, kwargs)
        out = self.run(index, func, args, kwargs)
        self.fresh = out if is_new else None
        place = next((i for i, a in enumerate(args) if a is out and isinstance(a, Tensor)), None)
        result = out if place is None else Same(place)
        self.lines.append(Line(func, given, result, _is_view(func), is_new))
        return out


def _script(graph: Graph, recorder: Recorder, reader: _Reader) -> Script | None:
    if any(v.origin == "constant" and v.name for v in graph.values):  # a view made unseen
        return None
    kept = [op for op in graph.ops if op.index not in reader.echoes]
    echoed = {
        op.outputs[0]: next(iter(op.inputs)) for op in graph.ops if op.index in reader.echoes
    }  # fmt: skip
    made = {v: -1 for _, v in graph.inputs}
    last: dict[int, float] = {}
    reads: dict[int, int] = {}
    for index, op in enumerate(kept):
        for v in op.inputs:
            last[echoed.get(v, v)] = index
            reads.setdefault(v, index)
        for v in op.outputs:
            if v is not None and v not in echoed and graph.values[v].origin == "op":
                made.setdefault(v, index)
    last |= {echoed.get(v, v): math.inf for _, v in graph.outputs}
    own = {
        _memory(recorder.tensors[v.id])
        for v in graph.values if v.origin in ("parameter", "buffer", "constant")
    }  # fmt: skip

    def has_to_run(index: int) -> bool:
        if index in reader.drawn or any(_memory(t) in own for t in reader.written[index]):
            return True
        results = [v for v in graph.ops[index].outputs if v is not None]
        return not isinstance(reader.lines[index].result, Same) and any(
            v not in made for v in results
        )

    def named(value: Any) -> Any:
        return Ref(recorder.value(value)) if isinstance(value, Tensor) else value

    return Script(
        lines=tuple(
            Line(line.func, line.given, tree_map(named, line.result), line.is_view, line.is_new)
            for line in (reader.lines[op.index] for op in kept)
        ),
        made=made,
        last=last,
        first={name: reads[v] for name, v in graph.tensors.items() if v in reads},
        inputs=tuple(v for _, v in graph.inputs),
        blanks={v: t for v in made if isinstance(t := recorder.tensors[v], FakeTensor)},
        until=next((i for i, op in enumerate(kept) if has_to_run(op.index)), len(kept)),
    )


def _draws(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operator draws random numbers, which dropout does in training only."""
    if _RANDOM not in getattr(func, "tags", ()):
        return False
    given = bind(func, args, kwargs)
    training = given.get("train", given.get("training"))
    return training is not False and given.get("dropout_p") != 0


def _makes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operator makes a tensor that depends on no other, but maybe on its shape."""
    if func.__name__.partition(".")[0].endswith("_like"):
        return True
    return not any(isinstance(v, Tensor) for v in tree_leaves((args, kwargs)))


@lru_cache(maxsize=4096)
def _is_view(func: Any) -> bool:
    """Whether an operator may return a view of what it was given."""
    found = [r.alias_info for r in func._schema.returns]
    return any(a is not None and not a.is_write for a in found)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
