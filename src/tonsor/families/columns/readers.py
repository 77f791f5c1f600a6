"""Which channels only columns read that may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from tonsor.anatomy import Anatomy
from tonsor.types import Axis, Concat, Leaf, Op, Ref, leaves

_PRODUCTS = (
    "matmul", "__matmul__", "mm", "bmm", "mv", "dot", "vdot", "addmm", "addmv", "baddbmm",
    "_grouped_mm", "linear", "bilinear", "einsum", "tensordot", "cdist", "_cdist_forward",
    "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu", "cumsum", "cumprod",
)  # fmt: skip


def readers(
    anatomy: Anatomy, layers: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[str, Axis]]]]:
    """Yield the groups that nothing reads but inputs of these layers, with the layers.

    `layers` has the name of a layer for its weight. A channel of such a group whose columns are all
    gone says nothing to anyone, whatever it is. Groups that lose indices in step with others, or
    over which something is taken on average, are left out.
    """
    names = {anatomy.graph.tensors[weight]: (weight, name) for weight, name in layers.items()}
    found: dict[str, list[tuple[str, Axis]]] = {}
    refused, fixed = set[str](), _fixed(anatomy)
    for op in anatomy.graph.ops:
        value = _weight(op)
        data = [v for v in op.inputs if v != value]
        given = _leaves(anatomy, data)
        lost = _leaves(anatomy, op.inputs) - _leaves(anatomy, op.outputs)
        refused |= _often(_many(anatomy, v) for v in data)
        if "conv" in op.name and value in names:
            name, layer = names[value]
            axis = anatomy.axes(name)[1]
            read = {f.name for f in leaves(axis)}
            for leaf in given & read:
                found.setdefault(leaf, []).append((layer, axis))
            refused |= lost - read
        elif value is not None:
            refused |= lost | (given & _summed(anatomy, op, value))
        elif op.name.removeprefix("aten.") in _PRODUCTS:
            refused |= lost | _leaves(anatomy, [v for v in data if v not in fixed])
            refused |= _often([sum((_many(anatomy, v) for v in data), Counter[str]())])
        else:
            refused |= lost
    for group in anatomy.prunable:
        alone = group.tie is None and group.unit == 1 and not group.approximate
        if alone and group.name in found and group.name not in refused:
            yield group.name, found[group.name]


def _weight(op: Op) -> int | None:
    """Return the weight of an operator that sums over what it reads by one, if it does."""
    weight = op.get("weight")
    sums = "conv" in op.name or op.name in ("aten.linear", "aten.bilinear")
    return weight.value if sums and isinstance(weight, Ref) else None


def _summed(anatomy: Anatomy, op: Op, weight: int) -> set[str]:
    """Return what an operator with a weight sums over, or may."""
    if "conv" in op.name and "transpose" not in op.name and not op.get("transposed", False):
        return {f.name for f in leaves(anatomy.solution.axes[weight][1])}
    return {group.name for group in anatomy.prunable}


def _leaves(anatomy: Anatomy, values: Iterable[int | None]) -> set[str]:
    axes = anatomy.solution.axes
    return {f.name for v in values if v is not None for axis in axes[v] for f in leaves(axis)}


def _often(counts: Iterable[Counter[str]]) -> set[str]:
    """Return what meets itself: of two places of one leaf, one can be summed and one be shown."""
    return {name for count in counts for name, times in count.items() if times > 1}


def _many(anatomy: Anatomy, value: int) -> Counter[str]:
    """Count in how many dimensions of a tensor each leaf is."""
    return sum((_within(axis) for axis in anatomy.solution.axes[value]), Counter[str]())


def _within(axis: Axis) -> Counter[str]:
    if isinstance(axis, Leaf):
        return Counter({axis.name: 1})
    found = Counter[str]()
    for part in axis.segments if isinstance(axis, Concat) else axis.factors:
        inner = _within(part)
        found = found | inner if isinstance(axis, Concat) else found + inner
    return found


def _fixed(anatomy: Anatomy) -> set[int]:
    """The values that depend on parameters, buffers and constants alone."""
    graph = anatomy.graph
    fixed = {v.id for v in graph.values if v.origin in ("parameter", "buffer", "constant")}
    for op in graph.ops:
        if all(v in fixed for v in op.inputs):
            fixed |= {v for v in op.outputs if v is not None}
    return fixed
