"""Where things are in a recorded run, to carry a verdict to the same place elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tonsor.types import Axis, Leaf, Op, Product, Solution

_WINDOW = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A part of an axis, seen from an operator: which value, which dimension, which branch."""

    value: int
    dim: int
    path: tuple[int, ...]


class Places:
    """Look up axes by place, and places by the line of code that runs them."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution
        self.lines: dict[tuple[object, ...], list[Op]] = {}
        for op in solution.graph.ops:
            self.lines.setdefault(self._line(op), []).append(op)

    def _line(self, op: Op) -> tuple[object, ...]:
        source = None if op.source is None else (op.source.file, op.source.line)
        return op.name, source, self.solution.graph.module_types.get(op.module)

    def same_line(self, op: Op) -> Iterator[Op]:
        """Yield other runs of the same line by modules of the same class."""
        if op.source is not None:
            yield from (o for o in self.lines[self._line(op)] if o is not op)

    def near(self, op: Op) -> Iterator[Axis]:
        """Yield the axes of an operator and of its neighbours, the nearest first."""
        ops = self.solution.graph.ops
        for other in [op, *ops[max(0, op.index - _WINDOW) : op.index + _WINDOW]]:
            for value in values_of(other):
                yield from self.solution.axes.get(value, ())

    def place(self, op: Op, axis: Axis) -> Place | None:
        """Find an axis among the values of an operator."""
        for i, value in enumerate(values_of(op)):
            for dim, whole in enumerate(self.solution.axes[value]):
                for path, part in _paths(whole):
                    if part == axis:
                        return Place(i, dim, path)
        return None

    def at(self, op: Op, place: Place | None) -> Axis | None:
        """Return what lies at a place, seen from another operator."""
        values = values_of(op)
        if place is None or place.value >= len(values):
            return None
        axes = self.solution.axes[values[place.value]]
        if place.dim >= len(axes):
            return None
        axis = axes[place.dim]
        for step in place.path:
            parts = parts_of(axis)
            if step >= len(parts):
                return None
            axis = parts[step]
        return axis


def values_of(op: Op) -> list[int]:
    """Return the results of an operator, then its tensor arguments."""
    return [*(v for v in op.outputs if v is not None), *op.inputs]


def parts_of(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors or segments of an axis; a leaf has none."""
    if isinstance(axis, Leaf):
        return ()
    return axis.factors if isinstance(axis, Product) else axis.segments


def _paths(axis: Axis, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Axis]]:
    yield path, axis
    for i, part in enumerate(parts_of(axis)):
        yield from _paths(part, (*path, i))


def subtrees(axis: Axis) -> Iterator[Axis]:
    """Yield an axis and every part of it."""
    for _, part in _paths(axis):
        yield part


def ancestors(path: str) -> Iterator[str]:
    """Yield a module path and those around it, up to the model itself."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def likewise(here: str, target: str, there: str) -> str:
    """Return the module that lies to `there` as `target` lies to `here`.

    >>> likewise("block.0.attn", "block.0", "block.7.attn")
    'block.7'
    """
    common = here
    while common and target != common and not target.startswith(f"{common}."):
        common = common.rpartition(".")[0]
        there = there.rpartition(".")[0]
    below = target[len(common) :].lstrip(".")
    return ".".join(p for p in (there, below) if p)
