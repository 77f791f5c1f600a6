"""The account of a model without some of its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tonsor.cost.account import Account
from tonsor.drops import Drop
from tonsor.graph.spans import gone_operators
from tonsor.types import Graph


def without(account: Account, graph: Graph, drops: Sequence[Drop]) -> Account:
    """Leave out the operators and parameters that nobody has any more without these blocks."""
    if not drops:
        return account
    gone = gone_operators(graph, drops)
    lost = {n for d in drops for n in graph.parameters if _under(n, d.modules)}
    lost -= {n for d in drops for n in graph.parameters if _under(n, d.through)}
    held = {value for name, value in graph.parameters.items() if name not in lost}
    return replace(
        account,
        lines=tuple(line for line in account.lines if line.op not in gone),
        parameters={n: a for n, a in account.parameters.items() if graph.tensors[n] in held},
        _sheets={},
    )


def _under(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{m}.") for m in modules)
