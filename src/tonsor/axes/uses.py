"""Where parameters meet data: which operator reads a weight, what comes in and what comes out.

A value is *fixed* if it depends on parameters, buffers and constants only, such as a weight that
was transposed or normalised. An operator that reads something fixed together with data is a use
of every parameter behind the fixed value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tonsor.types import Graph, Solution, leaves


@dataclass(frozen=True, slots=True)
class Use:
    """One operator that a parameter meets data in; `data` and `outputs` are ids of values."""

    op: int
    data: tuple[int, ...]
    outputs: tuple[int, ...]

    def makes(self, solution: Solution, leaf: str) -> bool:
        """Whether a leaf comes into being here: it is in what comes out, not in what comes in."""
        return _through(solution, self.outputs, leaf) and not self.reads(solution, leaf)

    def reads(self, solution: Solution, leaf: str) -> bool:
        """Whether a leaf is in the data that comes in."""
        return _through(solution, self.data, leaf)


def uses(graph: Graph) -> Mapping[str, tuple[Use, ...]]:
    """Return the uses of every parameter, by its first name, in the order of the run."""
    behind: dict[int, frozenset[int]] = {}
    for value in graph.values:
        if value.origin == "parameter":
            behind[value.id] = frozenset({value.id})
        elif value.origin in ("buffer", "constant"):
            behind[value.id] = frozenset()
    found: dict[int, list[Use]] = {}
    for op in graph.ops:
        inputs = tuple(dict.fromkeys(op.inputs))
        outputs = tuple(v for v in op.outputs if v is not None)
        data = tuple(v for v in inputs if v not in behind)
        parameters = frozenset[int]().union(*(behind[v] for v in inputs if v in behind))
        if not data:
            behind |= dict.fromkeys(outputs, parameters)
            continue
        for parameter in parameters:
            found.setdefault(parameter, []).append(Use(op.index, data, outputs))
    return {graph.name_of[v]: tuple(u) for v, u in found.items()}


def _through(solution: Solution, values: tuple[int, ...], leaf: str) -> bool:
    return any(f.name == leaf for v in values for axis in solution.axes[v] for f in leaves(axis))
