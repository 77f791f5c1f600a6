"""Which weights have read what a cut removes, and which tensor can make up for it.

A weight that sums over channels lacks a term for each that goes. The mean of what is missing can
be added to its bias, or taken off the running mean of a BatchNorm that reads nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.axes.tree import Mask
from tonsor.axes.uses import Use
from tonsor.cost.ops import BATCH_NORMS
from tonsor.families.channels import times
from tonsor.plans import Plan
from tonsor.types import Op, Ref, leaves

CONVOLUTIONS = frozenset({
    "aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten._convolution",
    "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d",
})  # fmt: skip
SUMS = CONVOLUTIONS | {"aten.linear"}
_NONE_FITS = "it has no bias, and no BatchNorm alone reads what comes out of it"

Kept = Sequence[Sequence[int] | None]


@dataclass(frozen=True, slots=True)
class Reader:
    """A weight with the input channels that it loses, and where their mean goes.

    It goes into the tensor `into` times `sign`: into a bias as it is, and off a running mean.
    """

    weight: str
    bias: str
    gone: tuple[int, ...]
    into: str
    sign: int


@dataclass(slots=True)
class Readers:
    """The weights that can be helped, and why the others can't."""

    found: list[Reader] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


def readers(anatomy: Anatomy, plan: Plan) -> Readers:
    """Return every weight that sums over something which the plan removes.

    In depthwise convolutions, and wherever whole groups of a convolution go, nothing is missing:
    what was read goes with what was made of it.
    """
    keep, names = plan.cut().keep, anatomy.graph.name_of
    known: dict[tuple[int, int], list[Op]] = {}
    for op in anatomy.graph.ops:
        weight, bias = op.get("weight"), op.get("bias")
        if op.name in SUMS and isinstance(weight, Ref) and weight.value in names:
            key = weight.value, bias.value if isinstance(bias, Ref) else -1
            known.setdefault(key, []).append(op)
    out = Readers()
    for (weight, bias), ops in known.items():
        name = names[weight]
        gone = _gone(ops, anatomy.graph.values[weight].shape, keep.get(name))
        if not gone:
            continue
        into, sign, why = _into_bias(anatomy, ops, bias) if bias >= 0 else _into_norm(anatomy, ops)
        if why:
            out.left[name] = why
        else:
            out.found.append(Reader(name, names.get(bias, ""), gone, into, sign))
    handled = {op.index for ops in known.values() for op in ops}
    out.left |= _summed_otherwise(anatomy, plan, keep, handled)
    return out


def running_means(anatomy: Anatomy) -> list[str]:
    """The names of the running means that BatchNorms subtract."""
    means = [op.get("running_mean") for op in anatomy.graph.ops if op.name in BATCH_NORMS]
    names = [anatomy.graph.name_of.get(m.value, "") for m in means if isinstance(m, Ref)]
    return [n for n in dict.fromkeys(names) if n]


def _gone(ops: Iterable[Op], shape: tuple[int, ...], kept: Kept | None) -> tuple[int, ...]:
    """The input channels that go while something is left of what is made of them."""
    if kept is None or len(shape) < 2:
        return ()
    op = next(iter(ops))
    groups = op.get("groups", 1)
    first, second = (_mask(n, k) for n, k in zip(shape[:2], kept[:2], strict=True))
    if "transpose" in op.name or op.get("transposed", False):
        alive = first
    elif groups == 1:
        alive = second
    else:
        alive = np.outer(first.reshape(groups, -1).any(1), second).reshape(-1)
    grouped = alive.reshape(groups, -1)
    if not (grouped.any(1) & ~grouped.all(1)).any():
        return ()
    return tuple(np.flatnonzero(~alive).tolist())


def _mask(size: int, kept: Sequence[int] | None) -> Mask:
    found = np.ones(size, dtype=np.bool_)
    if kept is not None:
        found[:] = False
        found[list(kept)] = True
    return found


def _into_bias(anatomy: Anatomy, ops: list[Op], bias: int) -> tuple[str, int, str]:
    name = anatomy.graph.name_of.get(bias, "")
    if not name:
        return "", 0, "its bias is computed anew in each run"
    if _ops_that_read(anatomy, bias) != {op.index for op in ops}:
        return "", 0, f"its bias '{name}' is shared with another layer"
    return name, 1, ""


def _into_norm(anatomy: Anatomy, ops: list[Op]) -> tuple[str, int, str]:
    """The running mean of the BatchNorm that alone reads what the operators make."""
    graph = anatomy.graph
    ends = {value for _, value in graph.outputs}
    means: set[int] = set()
    norms: set[int] = set()
    for op in ops:
        out = op.outputs[0]
        assert out is not None
        after = _ops_that_read(anatomy, out)
        norm = graph.ops[next(iter(after))] if len(after) == 1 and out not in ends else None
        if norm is None or norm.name not in BATCH_NORMS or not _lies_along(anatomy, op, out):
            return "", 0, _NONE_FITS
        mean = norm.get("running_mean")
        if not isinstance(mean, Ref) or norm.get("training", False):
            return "", 0, "its BatchNorm takes the mean of each batch, which mends this by itself"
        means.add(mean.value)
        norms.add(norm.index)
    if len(means) != 1:
        return "", 0, "several BatchNorms read what comes out of it, each in another place"
    (mean,) = means
    name = graph.name_of.get(mean, "")
    if not name or _ops_that_read(anatomy, mean) != norms:
        return "", 0, "its BatchNorm is shared with another layer"
    return name, -1, ""


def _lies_along(anatomy: Anatomy, op: Op, out: int) -> bool:
    """Whether the channels lie where a BatchNorm looks for them."""
    shapes = [anatomy.graph.values[v].shape for v in (out, op["weight"].value)]
    space = len(shapes[1]) - 2 if op.name in CONVOLUTIONS else 0
    return len(shapes[0]) - 1 - space == 1


def _ops_that_read(anatomy: Anatomy, value: int) -> set[int]:
    return {op.index for op in anatomy.graph.ops if value in op.inputs}


def _summed_otherwise(
    anatomy: Anatomy, plan: Plan, keep: Mapping[str, Kept], handled: set[int]
) -> dict[str, str]:
    """Parameters that sum over something which goes, in an operator that can't be helped."""
    found: dict[str, str] = {}
    for name, uses in anatomy.uses.items():
        axes = anatomy.axes(name)
        gone = [
            {leaf.name for leaf in leaves(axis)} & plan.keep.keys() if kept is not None else set()
            for axis, kept in zip(axes, keep.get(name, (None,) * len(axes)), strict=True)
        ]
        for use in uses:
            if use.op not in handled and any(
                _sums(anatomy, use, n, gone) for n in set().union(*gone)
            ):
                op = anatomy.graph.ops[use.op].name
                found[name] = (
                    "its layer computes another weight from it"
                    if op in SUMS
                    else f"{op} reads it, and only convolutions and linear layers are helped"
                )
    return found


def _sums(anatomy: Anatomy, use: Use, leaf: str, gone: Sequence[set[str]]) -> bool:
    """Whether a leaf is summed over: it comes in, and does not go out or is read as well."""
    solution = anatomy.solution
    passes = any(times(a, leaf) for v in use.outputs for a in solution.axes[v])
    return use.reads(solution, leaf) and (not passes or sum(leaf in g for g in gone) > 1)
