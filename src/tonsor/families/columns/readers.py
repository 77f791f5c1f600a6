"""Which channels only columns read that may go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tonsor.anatomy import Anatomy
from tonsor.types import Axis, Op, Ref, leaves

_PRODUCTS = (
    "matmul", "mm", "bmm", "addmm", "baddbmm", "linear", "bilinear", "einsum", "tensordot",
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
    refused = set[str]()
    fixed = _fixed(anatomy)
    for op in anatomy.graph.ops:
        given = {leaf for v in op.inputs if v not in fixed for leaf in _leaves(anatomy, v)}
        shown = {leaf for v in op.outputs if v is not None for leaf in _leaves(anatomy, v)}
        if not given:
            continue
        weight = op.get("weight")
        value = weight.value if isinstance(weight, Ref) else None
        if "conv" in op.name and value in names:
            name, layer = names[value]
            axis = anatomy.axes(name)[1]
            read = {f.name for f in leaves(axis)}
            for leaf in given & read:
                found.setdefault(leaf, []).append((layer, axis))
            refused |= given - read - shown
        elif _mingles(op):
            refused |= given if value is None else given & _summed(anatomy, op, value, shown)
        else:
            refused |= given - shown
    for group in anatomy.prunable:
        alone = group.tie is None and group.unit == 1 and not group.approximate
        if alone and group.name in found and group.name not in refused:
            yield group.name, found[group.name]


def _mingles(op: Op) -> bool:
    """Whether an operator may take channels together even where they come out of it."""
    return "conv" in op.name or op.name.removeprefix("aten.") in _PRODUCTS


def _summed(anatomy: Anatomy, op: Op, weight: int, shown: set[str]) -> set[str]:
    """Return what an operator with a weight sums over, or may."""
    axes = anatomy.solution.axes[weight]
    if "conv" in op.name and "transpose" not in op.name and not op.get("transposed", False):
        return {f.name for f in leaves(axes[1])} | (_all(anatomy) - shown)
    return _all(anatomy)


def _all(anatomy: Anatomy) -> set[str]:
    return {group.name for group in anatomy.prunable}


def _leaves(anatomy: Anatomy, value: int) -> set[str]:
    return {f.name for axis in anatomy.solution.axes[value] for f in leaves(axis)}


def _fixed(anatomy: Anatomy) -> set[int]:
    """The values that depend on parameters, buffers and constants alone."""
    graph = anatomy.graph
    fixed = {v.id for v in graph.values if v.origin in ("parameter", "buffer", "constant")}
    for op in graph.ops:
        if op.inputs and all(v in fixed for v in op.inputs):
            fixed |= {v for v in op.outputs if v is not None}
    return fixed
