"""Operators that only rearrange: views, permutations, joining and parting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op, Ref


def keep_zeros(s: Solver, op: Op) -> None:
    """A rearranged parameter is still zero wherever it was cut."""
    if all(v in s.zeroed for v in op.inputs):
        s.zeroed.update(v for v in op.outputs if v is not None)


def regroup(s: Solver, axes: Axes, new: Sequence[int]) -> Axes:
    """Read the same elements, in the same order, under another shape."""
    old = [a.size for a in axes]
    if math.prod(old) == 0 or math.prod(new) == 0:
        for node in axes:
            s.pin(node, "data", "an empty tensor says nothing of its axes")
        return [s.data(n, "a view of an empty tensor") for n in new]
    result: Axes = []
    i = j = 0
    while i < len(old) or j < len(new):
        source, target = [], []
        have = want = 1
        if i < len(old):
            source.append(axes[i])
            have, i = old[i], i + 1
        if j < len(new):
            target.append(new[j])
            want, j = new[j], j + 1
        while have != want:
            if have < want:
                source.append(axes[i])
                have, i = have * old[i], i + 1
            else:
                target.append(new[j])
                want, j = want * new[j], j + 1
        if not target:
            continue
        whole = s.product(source)
        result += [whole] if len(target) == 1 else s.split(whole, target)
    return result


@rule(
    "aten.view", "aten.reshape", "aten._unsafe_view", "aten._reshape_alias", "aten.flatten",
    "aten.unflatten", "aten.view_as", "aten.reshape_as", "aten.ravel", "aten._reshape_copy",
    "aten.view_copy",
)  # fmt: skip
def view(s: Solver, op: Op) -> list[Axes]:
    """Factors are multiplied together and taken apart."""
    if op.overload == "dtype":
        message = "a view as another dtype"
        raise NotImplementedError(message)
    keep_zeros(s, op)
    return [regroup(s, s.of(next(op.inputs)), s.out_shape(op))]


@rule(
    "aten.t", "aten.numpy_T", "aten.mT", "aten.mH", "aten.adjoint", "aten.matrix_H", "aten.t_copy"
)
def transpose_all(s: Solver, op: Op) -> list[Axes]:
    """The last two axes, or all of them, change places."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    if op.name in ("aten.t", "aten.numpy_T", "aten.matrix_H", "aten.t_copy"):
        return [x[::-1]]
    return [[*x[:-2], x[-1], x[-2]]]


@rule("aten.transpose", "aten.transpose_", "aten.swapaxes", "aten.swapdims", "aten.transpose_copy")
def transpose(s: Solver, op: Op) -> list[Axes]:
    """Two axes change places."""
    keep_zeros(s, op)
    x = list(s.of(op["self"]))
    i, j = (d for n, d in op.args.items() if n != "self")
    if x:
        x[i], x[j] = x[j], x[i]
    return [x]


@rule("aten.permute", "aten.permute_copy")
def permute(s: Solver, op: Op) -> list[Axes]:
    """Axes in another order."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    return [[x[d] for d in op["dims"]]]


@rule("aten.movedim", "aten.moveaxis")
def movedim(s: Solver, op: Op) -> list[Axes]:
    """Some axes go elsewhere, the others keep their order."""
    keep_zeros(s, op)
    x = s.of(op["self"])

    def dims(value: int | Sequence[int]) -> list[int]:
        return [d % len(x) for d in ([value] if isinstance(value, int) else value)]

    source, target = dims(op["source"]), dims(op["destination"])
    rest = iter([a for d, a in enumerate(x) if d not in source])
    places = dict(zip(target, source, strict=True))
    return [[x[places[d]] if d in places else next(rest) for d in range(len(x))]]


@rule("aten.unsqueeze", "aten.unsqueeze_", "aten.unsqueeze_copy")
def unsqueeze(s: Solver, op: Op) -> list[Axes]:
    """A new axis of one."""
    keep_zeros(s, op)
    x = list(s.of(op["self"]))
    x.insert(op["dim"] % (len(x) + 1), s.fresh(1))
    return [x]


@rule("aten.squeeze", "aten.squeeze_", "aten.squeeze_copy")
def squeeze(s: Solver, op: Op) -> list[Axes]:
    """Axes of one vanish."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    dim = op.args.get("dim")
    dims = range(len(x)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % max(len(x), 1) for d in dims}
    return [[a for d, a in enumerate(x) if not (d in gone and a.size == 1)]]


@rule("aten.expand", "aten.expand_as", "aten.broadcast_to", "aten.expand_copy")
def expand(s: Solver, op: Op) -> list[Axes]:
    """An axis of one becomes n alike; n is free unless something else holds it."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    shape = s.out_shape(op)
    old = len(shape) - len(x)
    return [
        [
            x[d - old] if d >= old and x[d - old].size == n else s.fresh(n)
            for d, n in enumerate(shape)
        ]
    ]


@rule("aten.repeat", "aten.tile")
def repeat(s: Solver, op: Op) -> list[Axes]:
    """An axis, several times over: (times × axis)."""
    x = s.of(op["self"])
    times = list(op["repeats"] if "repeats" in op.args else op["dims"])
    rank = max(len(times), len(x))
    times = [1] * (rank - len(times)) + times
    x = [s.fresh(1)] * (rank - len(x)) + list(x)
    return [[s.product([s.fresh(n), a]) for n, a in zip(times, x, strict=True)]]


@rule("aten.repeat_interleave")
def repeat_interleave(s: Solver, op: Op) -> list[Axes]:
    """Each index, several times: (axis × times)."""
    if isinstance(op.get("repeats"), Ref) or op.get("dim") is None:
        s.give_up(op, "unknown_op", "repeat_interleave with computed repeats")
        return [s.of(v) for v in op.outputs if v is not None]
    x = list(s.of(op["self"]))
    dim = op["dim"] % len(x)
    x[dim] = s.product([x[dim], s.fresh(op["repeats"])])
    return [x]


@rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(s: Solver, op: Op) -> list[Axes]:
    """Side by side along one axis, aligned along the others."""
    keep_zeros(s, op)
    shape = s.out_shape(op)
    parts = [s.of(r) for r in op["tensors"] if len(s.shape(r)) == len(shape)]
    dim = op.get("dim", 0) % len(shape)
    parts = [p for p in parts if p[dim].size or len(parts) == 1]
    first, *rest = parts
    result = list(first)
    for other in rest:
        for d, node in enumerate(other):
            if d != dim:
                result[d] = s.unify(result[d], node)
    result[dim] = s.concat([p[dim] for p in parts])
    return [result]


@rule("aten.stack")
def stack(s: Solver, op: Op) -> list[Axes]:
    """A new axis, one index for each tensor of a list."""
    keep_zeros(s, op)
    first, *rest = [s.of(r) for r in op["tensors"]]
    for other in rest:
        s.unify_all(first, other)
    shape = s.out_shape(op)
    dim = op.get("dim", 0) % len(shape)
    number = s.data(shape[dim], "one index for each of the stacked tensors")
    return [[*first[:dim], number, *first[dim:]]]


@rule(
    "aten.split", "aten.split_with_sizes", "aten.chunk", "aten.unsafe_split", "aten.tensor_split",
    "aten.unsafe_chunk", "aten.unsafe_split_with_sizes", "aten.hsplit", "aten.vsplit",
)  # fmt: skip
def split(s: Solver, op: Op) -> list[Axes]:
    """Consecutive ranges of an axis."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    dim = op.get("dim", 1 if op.name == "aten.hsplit" and len(x) > 1 else 0) % len(x)
    outputs: list[Axes] = []
    sizes = {s.out_shape(op, i)[dim] for i in range(len(op.outputs))}
    if len(sizes) > 1 and ("chunk" in op.name or type(op.get("split_size")) is int):
        s.pin(x[dim], "literal", "it is parted by a number that does not divide it")
    reached = 0
    for i in range(len(op.outputs)):
        size = s.out_shape(op, i)[dim]
        part = s.take(x[dim], reached, reached + size)
        outputs.append([*x[:dim], part, *x[dim + 1 :]])
        reached += size
    return outputs


@rule("aten.slice", "aten.slice_copy")
def slice_(s: Solver, op: Op) -> list[Axes]:
    """A range of an axis; a strided one pins it."""
    keep_zeros(s, op)
    x = list(s.of(op["self"]))
    dim = op.get("dim", 0) % len(x)
    start, stop = _range(op, x[dim].size)
    if op.get("step", 1) != 1:
        s.positions(x[dim], "a strided slice picks positions")
        x[dim] = s.data(s.out_shape(op)[dim], "a strided slice")
    else:
        x[dim] = s.take(x[dim], start, stop)
    return [x]


@rule("aten.slice_scatter")
def slice_scatter(s: Solver, op: Op) -> list[Axes]:
    """A range of an axis is written over; a strided one pins it."""
    x, source = s.axes_of(op, "self", "src")
    dim = op.get("dim", 0) % len(x)
    start, stop = _range(op, x[dim].size)
    here = list(x)
    if op.get("step", 1) != 1:
        s.positions(x[dim], "a strided slice picks positions")
        here[dim] = source[dim]
        s.positions(source[dim], "a strided slice picks positions")
    else:
        here[dim] = s.take(x[dim], start, stop)
    s.unify_all(here, source)
    return [x]


def _range(op: Op, size: int) -> tuple[int, int]:
    start = min(max(_from_end(op.get("start", 0), size), 0), size)
    return start, min(max(_from_end(op.get("end", size), size), start), size)


def _from_end(position: int, size: int) -> int:
    return position + size if position < 0 else position


@rule("aten.narrow", "aten.narrow_copy")
def narrow(s: Solver, op: Op) -> list[Axes]:
    """A range of an axis, by start and length."""
    keep_zeros(s, op)
    x = list(s.of(op["self"]))
    dim = op["dim"] % len(x)
    start = _from_end(op["start"], x[dim].size)
    x[dim] = s.take(x[dim], start, start + op["length"])
    return [x]


@rule("aten.select", "aten.select_copy")
def select(s: Solver, op: Op) -> list[Axes]:
    """One index of an axis."""
    x = list(s.of(op["self"]))
    dim = op["dim"] % len(x)
    s.positions(x[dim], f"index {op['index']} of it is selected by number")
    keep_zeros(s, op)
    return [x[:dim] + x[dim + 1 :]]


@rule("aten.unbind", "aten.unbind_copy")
def unbind(s: Solver, op: Op) -> list[Axes]:
    """Every index of an axis becomes a tensor of its own."""
    keep_zeros(s, op)
    x = s.of(op["self"])
    dim = op.get("dim", 0) % len(x)
    s.positions(x[dim], "it is unpacked index by index")
    return [x[:dim] + x[dim + 1 :] for _ in op.outputs]


@rule("aten.flip", "aten.roll", "aten.rot90")
def moved(s: Solver, op: Op) -> list[Axes]:
    """The same indices elsewhere along an axis."""
    x = s.of(op["self"])
    if op.name == "aten.rot90":
        message = "rot90 exchanges axes"
        raise NotImplementedError(message)
    for d in op.get("dims") or range(len(x)):
        s.positions(x[d % len(x)], f"{op.name.removeprefix('aten.')} moves its indices")
    return [x]


@rule("aten.unfold")
def unfold(s: Solver, op: Op) -> list[Axes]:
    """Sliding windows over an axis."""
    x = list(s.of(op["self"]))
    dim = op["dimension"] % len(x)
    s.positions(x[dim], "windows slide along it")
    shape = s.out_shape(op)
    x[dim] = s.data(shape[dim], "windows")
    return [[*x, s.data(shape[-1], "a position in a window")]]


@rule("aten.diagonal", "aten.diag_embed", "aten.trace")
def diagonal(s: Solver, op: Op) -> list[Axes]:
    """Positions along two axes are compared."""
    s.give_up(op, "position", f"{op.name.removeprefix('aten.')} compares positions of two axes")
    return [s.of(v) for v in op.outputs if v is not None]


@rule("aten.tril", "aten.triu", "aten.tril_", "aten.triu_")
def triangle(s: Solver, op: Op) -> list[Axes]:
    """The last two axes are compared by position."""
    x = s.of(op["self"])
    for node in x[-2:]:
        s.positions(node, "a triangle compares positions")
    return [x]


@rule("aten.view_as_real", "aten.view_as_complex")
def complex_view(s: Solver, op: Op) -> list[Axes]:
    """A last axis of two appears or goes."""
    x = s.of(op["self"])
    if op.name == "aten.view_as_real":
        return [[*x, s.data(2, "real and imaginary part")]]
    s.positions(x[-1], "real and imaginary part")
    return [x[:-1]]


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def fourier(s: Solver, op: Op) -> list[Axes]:
    """Frequencies depend on every position of the axes transformed."""
    x = list(s.of(op["self"]))
    for d in op["dim"]:
        s.positions(x[d % len(x)], "a Fourier transform runs along it")
        x[d % len(x)] = s.data(s.out_shape(op)[d % len(x)], "frequencies")
    return [x]
