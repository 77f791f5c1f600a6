"""The account of a model some of whose convolutions hold stripes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tonsor.cost.account import Account
from tonsor.cost.terms import Line, Term
from tonsor.stripes import stripe_leaf
from tonsor.types import Axis, Graph, Leaf, Ref


def by_stripes(account: Account, graph: Graph, weights: Iterable[str]) -> Account:
    """Count convolutions by the stripes that they have, where only filters were counted.

    Each stripe costs a multiply-accumulate for each of its inputs at each place of the output. In
    the counts, `stripe_leaf` of a weight says how many there are.
    """
    weights = [n for n in weights if n in graph.tensors]
    if not weights:
        return account
    values = {graph.tensors[n]: n for n in weights}
    parameters = dict(account.parameters)
    leaves = set(account.leaves)
    for name in [n for n in parameters if graph.tensors.get(n) in values]:
        filters, given, *kernel = parameters[name]
        leaf = _leaf(values[graph.tensors[name]], filters, kernel)
        parameters[name] = (leaf, given)
        leaves.add(leaf.name)
    lines = tuple(_line(account, line, graph, values) for line in account.lines)
    return replace(
        account, lines=lines, parameters=parameters, leaves=frozenset(leaves), _sheets={}
    )


def _leaf(name: str, filters: Axis, kernel: Iterable[Axis]) -> Leaf:
    size = filters.size
    for axis in kernel:
        size *= axis.size
    return Leaf(stripe_leaf(name), size)


def _line(account: Account, line: Line, graph: Graph, values: dict[int, str]) -> Line:
    op = graph.ops[line.op]
    weight = op.get("weight")
    if not isinstance(weight, Ref) or weight.value not in values or "conv" not in op.name:
        return line
    rank = len(graph.values[weight.value].shape) - 2
    terms = tuple(_term(t, rank, values[weight.value]) for t in line.terms)
    return replace(line, terms=terms)


def _term(term: Term, rank: int, name: str) -> Term:
    """Exchange filters and kernel for stripes: out is `(batch, filter, *places)`."""
    if term.kind != "conv":
        return term
    *out, given = term.axes[: len(term.axes) - rank]
    kernel = term.axes[len(term.axes) - rank :]
    filters = out.pop(len(out) - rank - 1)
    return replace(term, axes=(*out, given, _leaf(name, filters, kernel)))
