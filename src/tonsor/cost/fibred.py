"""The account of a model some of whose convolutions hold stripes or columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tonsor.cost.account import Account
from tonsor.cost.terms import Line, Term
from tonsor.fibres import Kind, fibre_leaf
from tonsor.types import Axis, Graph, Leaf, Ref


def by_fibres(account: Account, graph: Graph, kinds: Mapping[str, Kind]) -> Account:
    """Count convolutions by the fibres that they have, where only channels were counted.

    `kinds` says of weights what they have. Each stripe costs a multiply-accumulate for each of its
    inputs at each place of the output, each column one for each filter. In the counts,
    `fibre_leaf` of a weight says how many there are.
    """
    values: dict[int, tuple[Kind, str]] = {
        graph.tensors[n]: (kind, n) for n, kind in kinds.items() if n in graph.tensors
    }
    if not values:
        return account
    parameters = dict(account.parameters)
    leaves = set(account.leaves)
    for name in [n for n in parameters if graph.tensors.get(n) in values]:
        filters, given, *kernel = parameters[name]
        kind, weight = values[graph.tensors[name]]
        leaf = _leaf(kind, weight, filters if kind == "stripes" else given, kernel)
        parameters[name] = (leaf, given) if kind == "stripes" else (filters, leaf)
        leaves.add(leaf.name)
    lines = tuple(_line(line, graph, values) for line in account.lines)
    return replace(
        account, lines=lines, parameters=parameters, leaves=frozenset(leaves), _sheets={}
    )


def _leaf(kind: Kind, name: str, rows: Axis, kernel: Iterable[Axis]) -> Leaf:
    size = rows.size
    for axis in kernel:
        size *= axis.size
    return Leaf(fibre_leaf(kind, name), size)


def _line(line: Line, graph: Graph, values: Mapping[int, tuple[Kind, str]]) -> Line:
    op = graph.ops[line.op]
    weight = op.get("weight")
    if not isinstance(weight, Ref) or weight.value not in values or "conv" not in op.name:
        return line
    rank = len(graph.values[weight.value].shape) - 2
    terms = tuple(_term(t, rank, *values[weight.value]) for t in line.terms)
    return replace(line, terms=terms)


def _term(term: Term, rank: int, kind: Kind, name: str) -> Term:
    """Exchange filters or inputs, and the kernel, for fibres.

    The axes are `(batch, filter, *places, input, *kernel)`.
    """
    if term.kind != "conv":
        return term
    *out, given = term.axes[: len(term.axes) - rank]
    kernel = term.axes[len(term.axes) - rank :]
    if kind == "columns":
        return replace(term, axes=(*out, _leaf(kind, name, given, kernel)))
    filters = out.pop(len(out) - rank - 1)
    return replace(term, axes=(*out, given, _leaf(kind, name, filters, kernel)))
