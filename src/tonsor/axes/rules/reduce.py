"""Reductions: an axis is summed, averaged or searched away."""

from __future__ import annotations

import itertools
from typing import Any

from tonsor.axes.registry import rule
from tonsor.axes.rules.pointwise import pointwise
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op

# Zero adds nothing to these; in the others a cut changes what the statistic is of.
_SUMS = ("aten.sum", "aten.nansum", "aten.count_nonzero", "aten.norm", "aten.linalg_vector_norm")
_STATISTICS = (
    "aten.mean", "aten.nanmean", "aten.var", "aten.std", "aten.amax", "aten.amin", "aten.max",
    "aten.min", "aten.prod", "aten.any", "aten.all", "aten.logsumexp", "aten.var_mean",
    "aten.std_mean", "aten.aminmax", "aten.special_logsumexp",
)  # fmt: skip
_PLACES = (
    "aten.argmax", "aten.argmin", "aten.median", "aten.nanmedian", "aten.mode", "aten.kthvalue",
    "aten.quantile", "aten.nanquantile",
)  # fmt: skip


def _dims(op: Op, rank: int) -> set[int]:
    dim: Any = op.get("dim")
    if dim is None or dim == ():
        return set(range(rank))
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    return {d % max(rank, 1) for d in dims}


def _reduced(s: Solver, op: Op, dims: set[int]) -> list[Axes]:
    x = s.of(op["self"])
    outputs: list[Axes] = []
    for i in range(len(op.outputs)):
        keeps = len(s.out_shape(op, i)) == len(x)
        kept = [s.fresh(1) if d in dims else a for d, a in enumerate(x)]
        outputs.append(kept if keeps else [a for d, a in enumerate(x) if d not in dims])
    return outputs


def _is_pair(op: Op) -> bool:
    return len(list(op.inputs)) > 1  # max(a, b): pointwise


@rule(*_SUMS)
def sums(s: Solver, op: Op) -> list[Axes]:
    """A sum over axes."""
    x = s.of(op["self"])
    dims = _dims(op, len(x))
    s.mix([x[d] for d in dims], op.name.removeprefix("aten."), approximate=False)
    return _reduced(s, op, dims)


@rule(*_STATISTICS)
def statistics(s: Solver, op: Op) -> list[Axes]:
    """A mean, an extremum: taken over what is kept."""
    x = s.of(op["self"])
    if _is_pair(op):
        return pointwise(s, op)
    dims = _dims(op, len(x))
    s.mix([x[d] for d in dims], op.name.removeprefix("aten."), approximate=True)
    if len(op.outputs) > 1 and op.name in ("aten.max", "aten.min") and _used(s, op, 1):
        for d in dims:
            s.positions(x[d], "the place of an extremum is used")
    return _reduced(s, op, dims)


@rule(*_PLACES)
def places(s: Solver, op: Op) -> list[Axes]:
    """Where an extremum is, or the middle: positions matter."""
    x = s.of(op["self"])
    dims = _dims(op, len(x))
    for d in dims:
        s.positions(x[d], f"{op.name.removeprefix('aten.')} looks for a place along it")
    return _reduced(s, op, dims)


def _used(s: Solver, op: Op, which: int) -> bool:
    value = op.outputs[which]
    return value is not None and s.uses[value] > 0


@rule("aten.cumsum", "aten.cumprod", "aten.logcumsumexp", "aten.cummax", "aten.cummin")
def cumulative(s: Solver, op: Op) -> list[Axes]:
    """A running total over what is kept."""
    x = s.of(op["self"])
    if x:
        exact = op.name == "aten.cumsum"
        s.mix([x[op["dim"] % len(x)]], op.name.removeprefix("aten."), approximate=not exact)
        if len(op.outputs) > 1:
            s.positions(x[op["dim"] % len(x)], "the place of an extremum may be used")
    return [x for _ in op.outputs]


@rule("aten.sort", "aten.argsort", "aten.topk", "aten.msort")
def order(s: Solver, op: Op) -> list[Axes]:
    """Sorting along an axis."""
    x = list(s.of(op["self"]))
    dim = op.get("dim", -1) % len(x)
    s.positions(x[dim], f"{op.name.removeprefix('aten.')} orders it")
    x[dim] = s.data(s.out_shape(op)[dim], "an axis that was ordered")
    return [list(x) for _ in op.outputs]


@rule("aten.cosine_similarity")
def cosine(s: Solver, op: Op) -> list[Axes]:
    """Angles between vectors along an axis; either operand may be spread over the other."""
    pair = [op["x1"], op["x2"]]
    sizes = itertools.zip_longest(*(reversed(s.shape(ref)) for ref in pair), fillvalue=1)
    x = s.broadcast(op, pair, [b if a == 1 else a for a, b in sizes][::-1])
    dim = op.get("dim", 1) % len(x)
    s.mix([x[dim]], "cosine_similarity", approximate=False)
    return [x[:dim] + x[dim + 1 :]]
