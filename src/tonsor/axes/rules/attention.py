"""Attention: queries meet keys along the head dimension; heads are a batch of their own."""

from __future__ import annotations

from tonsor.axes.einsum import letters
from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Node, Solver
from tonsor.types import Op, Ref

SOFTMAX = ("aten.softmax", "aten._softmax", "aten._safe_softmax")
_PASSES = ("aten.dropout", "aten.to", "aten._to_copy", "aten.type_as", "aten.clone", "aten.view",
           "aten.reshape", "aten.expand", "aten._unsafe_view")  # fmt: skip
_WALK = 16


@rule("aten.scaled_dot_product_attention")
def sdpa(s: Solver, op: Op) -> list[Axes]:
    """softmax(q kᵀ · scale) v, with grouped heads where asked for."""
    q, k, v = s.axes_of(op, "query", "key", "value")
    s.unify(q[-1], k[-1])
    s.unify(k[-2], v[-2])
    lead = list(q[:-2])
    for axes in (k, v):
        for i, node in enumerate(axes[:-2]):
            lead[i] = _same_batch(s, lead[i], node)
    if op.get("attn_mask") is not None:
        mask = s.of(op["attn_mask"])
        wanted = [*lead, q[-2], k[-2]]
        for node, other in zip(reversed(mask), reversed(wanted), strict=False):
            if node.size == other.size:
                s.unify(node, other)
    s.note(q[-1], "head_dim")
    s.note(v[-1], "head_dim")
    for node in lead:
        s.note(node, "heads")
    s.mix([q[-1], k[-2]], "attention", approximate=op.get("scale") is None)
    return [[*lead, q[-2], v[-1]]]


def _same_batch(s: Solver, query: Node, other: Node) -> Node:
    if query.size == other.size:
        return s.unify(query, other)
    if other.size == 1:
        return query
    if query.size == 1:
        return other
    outer, each = s.split(query, [other.size, query.size // other.size])
    s.unify(outer, other)
    s.pin(each, "literal", "queries for each key: with a mask, most code reads a stored number")
    return query


def note_attention(s: Solver, op: Op) -> None:
    """Look back from a softmax to the product of two activations that feeds it."""
    value = next(op.inputs)
    for _ in range(_WALK):
        made = s.producer.get(value)
        if made is None:
            return
        if made.name == "aten.einsum":
            note_einsum_scores(s, made)
            return
        if made.name in ("aten.matmul", "aten.bmm", "aten.baddbmm"):
            _note_scores(s, made)
            return
        follow = [v for v in made.inputs if v in s.producer]
        same = [v for v in follow if s.graph.values[v].shape == s.graph.values[value].shape]
        if not follow or made.name == "aten.linear":
            return
        value = (same or follow)[0]


def note_weighted(s: Solver, weights: Ref, values: Node) -> None:
    """Note the head dimension of values that attention weights are multiplied with."""
    made = s.producer.get(weights.value)
    for _ in range(_WALK):
        if made is None:
            return
        if made.name in SOFTMAX:
            s.note(values, "head_dim")
            return
        if not (made.pointwise or made.name in _PASSES):
            return
        made = s.producer.get(next(made.inputs))


def note_einsum_scores(s: Solver, op: Op) -> None:
    """Note the head dimension and the heads of scores that an einsum has made."""
    refs = op["tensors"]
    found = letters(op["equation"], [len(s.of(r)) for r in refs], len(s.out_shape(op)))
    if found is None or len(refs) != 2 or any(s.is_zeroed(r) for r in refs):
        return
    (first, second), out = found
    for letter, node in zip(first, s.of(refs[0]), strict=True):
        if letter in second:
            s.note(node, "heads" if letter in out else "head_dim")


def _note_scores(s: Solver, op: Op) -> None:
    names = ("batch1", "batch2") if op.name == "aten.baddbmm" else ("self", "other")
    first = op[names[0]]
    second = op.get(names[1]) or op.get("mat2")
    if not isinstance(second, Ref) or s.is_zeroed(first) or s.is_zeroed(second):
        return
    a = s.of(first)
    s.note(a[-1], "head_dim")
    for node in a[:-2]:
        s.note(node, "heads")
