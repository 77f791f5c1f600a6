"""Matrix products: the contracted axes are one, the others pass through."""

from __future__ import annotations

from typing import Any

from tonsor.axes.einsum import letters
from tonsor.axes.registry import rule
from tonsor.axes.rules.attention import note_weighted
from tonsor.axes.solver import Axes, Node, Solver
from tonsor.types import Op, Ref


@rule("aten.linear")
def linear(s: Solver, op: Op) -> list[Axes]:
    """y = x Wᵀ + b."""
    x, weight, bias = s.axes_of(op, "input", "weight", "bias")
    s.contract(op["input"], -1, op["weight"], -1)
    out = [weight[0]] if len(weight) == 2 else []
    if bias and out:
        s.unify(weight[0], bias[0])
    return [[*x[:-1], *out]]


def product_axes(s: Solver, a: Ref, b: Ref, shape: tuple[int, ...]) -> Axes:
    """Return the axes of a @ b, with the broadcasting of `torch.matmul`."""
    x, y = s.of(a), s.of(b)
    s.contract(a, -1, b, -2 if len(y) > 1 else -1)
    if len(y) > 1 and not s.is_zeroed(b):
        note_weighted(s, a, y[-1])
    rows = [x[-2]] if len(x) > 1 else []
    columns = [y[-1]] if len(y) > 1 else []
    lead = list(shape[: len(shape) - len(rows) - len(columns)])
    batch: Axes = []
    for i, size in enumerate(lead):
        found = None
        for axes in (x[:-2], y[:-2]):
            j = i - len(lead) + len(axes)
            if j >= 0 and axes[j].size == size:
                found = axes[j] if found is None else s.unify(found, axes[j])
        batch.append(s.fresh(size) if found is None else found)
    return [*batch, *rows, *columns]


@rule("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot", "aten.__matmul__")
def matmul(s: Solver, op: Op) -> list[Axes]:
    """a @ b in all its forms."""
    b: Any = next(op[k] for k in ("other", "mat2", "vec", "tensor") if isinstance(op.get(k), Ref))
    return [product_axes(s, op["self"], b, s.out_shape(op))]


@rule("aten.addmm", "aten.addmv", "aten.baddbmm")
def addmm(s: Solver, op: Op) -> list[Axes]:
    """bias + a @ b."""
    names = (("mat1", "mat2"), ("mat", "vec"), ("batch1", "batch2"))
    a, b = next((op[p], op[q]) for p, q in names if isinstance(op.get(p), Ref))
    shape = s.out_shape(op)
    axes = product_axes(s, a, b, shape)
    for node, other in zip(axes, s.broadcast(op, [op["self"]], shape), strict=True):
        s.unify(node, other)
    return [axes]


@rule("aten.einsum")
def einsum(s: Solver, op: Op) -> list[Axes]:
    """Equal letters are equal axes; letters that vanish are summed over."""
    refs = op["tensors"]
    found = letters(op["equation"], [len(s.of(r)) for r in refs], len(s.out_shape(op)))
    if found is None:
        message = f"einsum {op['equation']!r} takes a diagonal"
        raise NotImplementedError(message)
    terms, out = found
    nodes: dict[str, Node] = {}
    for term, ref in zip(terms, refs, strict=True):
        for letter, node in zip(term, s.of(ref), strict=True):
            seen = nodes.get(letter)
            if seen is None or seen.size == 1:
                nodes[letter] = node
            elif node.size != 1:
                nodes[letter] = s.unify(seen, node)
    for letter in nodes.keys() - set(out):
        holders = [r for t, r in zip(terms, refs, strict=True) if letter in t]
        if not any(s.is_zeroed(r) for r in holders):
            s.mix([nodes[letter]], "a sum of products", approximate=False)
    if len(refs) == 2 and not s.is_zeroed(refs[1]):
        for letter, node in zip(terms[1], s.of(refs[1]), strict=True):
            if letter in out and letter not in terms[0]:
                note_weighted(s, refs[0], node)
    return [[nodes[letter] for letter in out]]


@rule("aten._grouped_mm")
def grouped_mm(s: Solver, op: Op) -> list[Axes]:
    """Rows sorted by expert, each run of them times its expert's matrix."""
    x, weight = s.of(op["self"]), s.of(op["mat2"])
    if len(x) != 2 or len(weight) != 3:
        message = "only rows times a stack of matrices"
        raise NotImplementedError(message)
    s.contract(op["self"], 1, op["mat2"], 1)
    s.positions(weight[0], "experts are chosen by number")
    if op.get("bias") is not None:
        s.unify(s.of(op["bias"])[-1], weight[2])
    return [[x[0], weight[2]]]


@rule("aten.bilinear")
def bilinear(s: Solver, op: Op) -> list[Axes]:
    """x1 W x2 + b."""
    x, y, weight, bias = s.axes_of(op, "input1", "input2", "weight", "bias")
    s.unify(x[-1], weight[1])
    s.unify(y[-1], weight[2])
    if bias:
        s.unify(weight[0], bias[0])
    lead = [s.unify(a, b) for a, b in zip(x[:-1], y[:-1], strict=True)]
    return [[*lead, weight[0]]]


@rule("aten.cdist", "aten._cdist_forward")
def cdist(s: Solver, op: Op) -> list[Axes]:
    """Distances between the rows of two tensors sum over their last axis."""
    x, y = s.axes_of(op, "x1", "x2")
    s.mix([s.unify(x[-1], y[-1])], "distances", approximate=False)
    lead = [s.unify(a, b) if a.size == b.size else a for a, b in zip(x[:-2], y[:-2], strict=True)]
    return [[*lead, x[-2], y[-2]]]
