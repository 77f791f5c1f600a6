"""Say of an operator which one it is, so that it is found in another run of the model."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from tonsor.drops import Spot
from tonsor.types import Graph


class Spots:
    """Number the operators of each name that run in each module."""

    def __init__(self, graph: Graph) -> None:
        seen: Counter[tuple[str, str]] = Counter()
        self._found: list[tuple[str, str, int]] = []
        for op in graph.ops:
            key = op.module, op.name
            self._found.append((*key, seen[key]))
            seen[key] += 1

    def spot(self, op: int, argument: str = "") -> Spot:
        """Return the spot of an argument of an operator, or of its result."""
        return Spot(*self._found[op], argument)

    def index(self, spot: Spot) -> int | None:
        """Return the operator that a spot is about."""
        return self._places.get((spot.module, spot.operator, spot.turn))

    @cached_property
    def _places(self) -> dict[tuple[str, str, int], int]:
        return {found: i for i, found in enumerate(self._found)}
