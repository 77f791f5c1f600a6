"""Where parameters meet data: which operator reads a weight, what comes in and what comes out.

A value is *fixed* if it depends on parameters, buffers and constants only, such as a weight that
was transposed or normalised. An operator that reads something fixed together with data is a use
of every parameter behind the fixed value. Room that data is written into is data from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tonsor.types import Graph, Op, Solution, leaves


@dataclass(frozen=True, slots=True)
class Use:
    """One operator that a parameter meets data in; `data` and `outputs` are ids of values."""

    op: int
    data: tuple[int, ...]
    outputs: tuple[int, ...]

    def makes(self, solution: Solution, leaf: str) -> bool:
        """Whether a leaf comes into being here: it is in what comes out, not in what comes in."""
        return self.shows(solution, leaf) and not self.reads(solution, leaf)

    def reads(self, solution: Solution, leaf: str) -> bool:
        """Whether a leaf is in the data that comes in."""
        return _through(solution, self.data, leaf)

    def shows(self, solution: Solution, leaf: str) -> bool:
        """Whether a leaf is in what comes out."""
        return _through(solution, self.outputs, leaf)


def uses(graph: Graph) -> Mapping[str, tuple[Use, ...]]:
    """Return the uses of every parameter, by its first name, in the order of the run."""
    behind: dict[int, frozenset[int]] = {}
    for value in graph.values:
        if value.origin == "parameter":
            behind[value.id] = frozenset({value.id})
        elif value.origin in ("buffer", "constant"):
            behind[value.id] = frozenset()
    found: dict[int, list[Use]] = {}
    room = _Room()
    for op in graph.ops:
        inputs = tuple(dict.fromkeys(op.inputs))
        outputs = tuple(v for v in op.outputs if v is not None)
        data = tuple(v for v in inputs if v not in behind)
        parameters = frozenset[int]().union(*(behind[v] for v in inputs if v in behind))
        room.note(op, inputs, outputs)
        if not data:
            behind |= dict.fromkeys(outputs, parameters)
            continue
        for value in outputs:
            if value in behind:  # data is written into what was fixed
                for shared in room.of(value):
                    if graph.values[shared].origin != "parameter":
                        behind.pop(shared, None)
        for parameter in parameters if outputs else ():
            found.setdefault(parameter, []).append(Use(op.index, data, outputs))
    return {graph.name_of[v]: tuple(u) for v, u in found.items()}


class _Room:
    """Which values are views of the same memory."""

    def __init__(self) -> None:
        self._base: dict[int, int] = {}
        self._views: dict[int, list[int]] = {}

    def note(self, op: Op, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        if inputs and _is_view(op.name, op.overload):
            base = self._base.get(inputs[0], inputs[0])
            for value in outputs:
                if value not in self._base and value != base:
                    self._base[value] = base
                    self._views.setdefault(base, []).append(value)

    def of(self, value: int) -> list[int]:
        base = self._base.get(value, value)
        return [base, *self._views.get(base, ())]


@lru_cache(maxsize=4096)
def _is_view(name: str, overload: str) -> bool:
    """Whether what an operator returns lies in the memory of what it was given."""
    found: Any = torch.ops
    for step in (*name.split("."), overload or "default"):
        found = getattr(found, step, None)
    schema = getattr(found, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)


def _through(solution: Solution, values: tuple[int, ...], leaf: str) -> bool:
    return any(f.name == leaf for v in values for axis in solution.axes[v] for f in leaves(axis))
