"""Which operators of a run go with some blocks."""

from __future__ import annotations

from collections.abc import Iterable

from tonsor.drops import Drop
from tonsor.types import Graph


def gone_operators(graph: Graph, drops: Iterable[Drop]) -> set[int]:
    """Return the operators that ran inside of blocks that go, but not inside of what stays."""
    drops = list(drops)
    return _inside(graph, {m for d in drops for m in d.modules}) - _inside(
        graph, {m for d in drops for m in d.through}
    )


def _inside(graph: Graph, modules: set[str]) -> set[int]:
    return {i for c in graph.calls if c.module in modules for i in range(c.first, c.stop)}
