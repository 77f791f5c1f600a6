"""What a cost is made of, and the table of formulas: operator name to the terms of its cost.

A term is `factor × Π count(axis)`. Axes know how many of their indices survive a plan, so a
cost written once in terms is exact after every plan, and nothing has to run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tonsor.types import Axis, Leaf, Op, Ref, Solution

Kind = Literal[
    "conv", "linear", "matmul", "attention", "recurrent",
    "bias", "norm", "activation", "pool", "resize", "pointwise",
]  # fmt: skip
"""The first five count multiply-accumulates; of the others each counts elements: those written
(bias, norm, activation, resize), read in windows (pool), or worked on one by one (pointwise)."""

Counts: TypeAlias = Mapping[str, int]
"""How many indices are kept of each leaf; a leaf that isn't named is whole."""


@dataclass(frozen=True, slots=True)
class Term:
    """`factor × Π count(axis)` units of one kind."""

    kind: Kind
    factor: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One recorded operator that costs something."""

    op: int
    operator: str
    module: str
    module_type: str
    terms: tuple[Term, ...]


class Reader:
    """Looks up the axes of an operator's arguments and results."""

    def __init__(self, solution: Solution) -> None:
        self.solution = solution

    def of(self, ref: Ref | int) -> tuple[Axis, ...]:
        """Return the axes of a value; one that the solver never asked about keeps its sizes."""
        value = ref.value if isinstance(ref, Ref) else ref
        known = self.solution.axes.get(value)
        if known is not None:
            return known
        shape = self.solution.graph.values[value].shape
        return tuple(Leaf(f"~value{value}[{d}]", n) for d, n in enumerate(shape))

    def out(self, op: Op, which: int = 0) -> tuple[Axis, ...]:
        """Return the axes of a result."""
        value = op.outputs[which]
        if value is None:
            message = f"{op.name} has no tensor as its result {which}"
            raise ValueError(message)
        return self.of(value)


Formula: TypeAlias = Callable[[Reader, Op], list[Term]]

FORMULAS: dict[str, Formula] = {}
FREE: set[str] = set()


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Register what operators cost, named as torch names them without the overload.

    >>> @formula("mylib.scale_channels")
    ... def scale_channels(r, op):
    ...     return [Term("pointwise", 1, r.out(op))]
    """

    def register(function: Formula) -> Formula:
        for name in names:
            _refuse_known(name)
            FORMULAS[name] = function
        return function

    return register


def free(*names: str) -> None:
    """Say that operators do no arithmetic: they only move, make, choose or look up.

    >>> free("mylib.shuffle_rows")
    """
    for name in names:
        _refuse_known(name)
        FREE.add(name)


def _refuse_known(name: str) -> None:
    if name in FORMULAS:
        message = f"operator '{name}' has a formula already: {FORMULAS[name].__name__}"
        raise ValueError(message)
    if name in FREE:
        message = f"operator '{name}' is said to be free already"
        raise ValueError(message)
