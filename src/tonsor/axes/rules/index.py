"""Looking up by index: the axis that is looked into is pinned, the others are not."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op, Ref

LOOKED_UP = "it is looked up by index"


@rule("aten.embedding")
def embedding(s: Solver, op: Op) -> list[Axes]:
    """Rows are looked up, columns pass through."""
    weight, indices = s.axes_of(op, "weight", "indices")
    s.positions(weight[0], LOOKED_UP)
    return [[*indices, weight[1]]]


@rule("aten.embedding_bag", "aten._embedding_bag", "aten._embedding_bag_forward_only")
def embedding_bag(s: Solver, op: Op) -> list[Axes | None]:
    """Rows are looked up and summed, columns pass through."""
    weight, indices = s.axes_of(op, "weight", "indices")
    s.positions(weight[0], LOOKED_UP)
    for node in indices:
        s.positions(node, LOOKED_UP)
    rest: list[Axes | None] = [
        [s.data(n, "bookkeeping of an embedding bag") for n in s.out_shape(op, i)]
        for i in range(1, len(op.outputs))
    ]
    return [[s.data(s.out_shape(op)[0], "bags"), weight[1]], *rest]


@rule("aten.index", "aten._unsafe_index")
def index(s: Solver, op: Op) -> list[Axes]:
    """Advanced indexing with one or several index tensors."""
    x = s.of(op["self"])
    indices = list(op["indices"])
    used = [i for i, r in enumerate(indices) if isinstance(r, Ref)]
    refs = [indices[i] for i in used]
    shape = s.out_shape(op)
    if any("bool" in s.graph.values[r.value].dtype for r in refs):
        return [_masked(s, x, used, refs, shape)]
    for i in used:
        s.positions(x[i], LOOKED_UP)
    rest = len(x) - len(used)
    taken = s.broadcast(op, refs, _common_shape(s, refs))
    side_by_side = used == list(range(used[0], used[0] + len(used)))
    before = used[0] if side_by_side else 0
    others = [a for i, a in enumerate(x) if i not in used]
    assert len(others) == rest
    return [[*others[:before], *taken, *others[before:]]]


def _common_shape(s: Solver, refs: list[Ref]) -> list[int]:
    rank = max(len(s.shape(r)) for r in refs)
    padded = [(1,) * (rank - len(s.shape(r))) + s.shape(r) for r in refs]
    return [max(p[d] for p in padded) if all(p[d] for p in padded) else 0 for d in range(rank)]


def _masked(s: Solver, x: Axes, used: list[int], refs: list[Ref], shape: tuple[int, ...]) -> Axes:
    if len(refs) > 1:
        message = "several boolean masks at once"
        raise NotImplementedError(message)
    mask = s.of(refs[0])
    start = used[0]
    for node, other in zip(x[start : start + len(mask)], mask, strict=True):
        s.unify(node, other)
        s.positions(node, "a boolean mask picks positions")
    picked = s.data(shape[start], "as many as a mask lets through")
    return [*x[:start], picked, *x[start + len(mask) :]]


@rule("aten.index_select")
def index_select(s: Solver, op: Op) -> list[Axes]:
    """One axis is looked into."""
    x = list(s.of(op["self"]))
    if not x:
        return [x]
    dim = op["dim"] % len(x)
    s.positions(x[dim], LOOKED_UP)
    (found,) = s.of(op["index"]) or [s.fresh(1)]
    x[dim] = found
    return [x]


@rule("aten.gather", "aten.take_along_dim")
def gather(s: Solver, op: Op) -> list[Axes]:
    """One axis is looked into, the others are walked through together."""
    x, where = s.of(op["self"]), s.of(op["index"] if "index" in op.args else op["indices"])
    _walk(s, x, where, op["dim"] % max(len(x), 1))
    return [where]


def _walk(s: Solver, x: Axes, where: Axes, dim: int) -> None:
    for d, (node, other) in enumerate(zip(x, where, strict=True)):
        if d == dim:
            s.positions(node, LOOKED_UP)
            s.positions(other, LOOKED_UP)
        elif node.size == other.size:
            s.unify(node, other)
        else:
            s.positions(node, "only a part of it is walked through")
            s.positions(other, "it walks through a part of another axis")


@rule(
    "aten.index_add", "aten.index_add_", "aten.index_copy", "aten.index_copy_", "aten.index_fill",
    "aten.index_fill_", "aten.index_reduce", "aten.index_reduce_",
)  # fmt: skip
def index_write(s: Solver, op: Op) -> list[Axes]:
    """Rows are written at computed places; the other axes are tied."""
    x = s.of(op["self"])
    dim = op["dim"] % len(x)
    s.positions(x[dim], "written at computed places")
    source = op.get("source")
    if isinstance(source, Ref) and len(s.of(source)) == len(x):
        for d, (node, other) in enumerate(zip(x, s.of(source), strict=True)):
            if d != dim:
                s.unify(node, other)
    return [x]


@rule(
    "aten.scatter", "aten.scatter_", "aten.scatter_add", "aten.scatter_add_",
    "aten.scatter_reduce", "aten.scatter_reduce_",
)  # fmt: skip
def scatter(s: Solver, op: Op) -> list[Axes]:
    """Elements are written at computed places along one axis."""
    x, where = s.axes_of(op, "self", "index")
    dim = op["dim"] % max(len(x), 1)
    _walk(s, x, where, dim)
    source = op.get("src")
    if isinstance(source, Ref) and len(s.of(source)) == len(where):
        _walk(s, s.of(source), where, dim)
    return [x]


@rule("aten.index_put", "aten.index_put_", "aten._unsafe_index_put", "aten._index_put_impl_")
def index_put(s: Solver, op: Op) -> list[Axes]:
    """Values are written where index tensors point; trailing axes are tied."""
    x = s.of(op["self"])
    indices = list(op["indices"])
    used = [i for i, r in enumerate(indices) if isinstance(r, Ref)]
    bools = [r for r in indices if isinstance(r, Ref) and "bool" in s.graph.values[r.value].dtype]
    if used != list(range(len(used))) or (bools and len(used) > 1):
        s.give_up(op, "position", "written at computed places")
        return [x]
    last = len(s.of(bools[0])) if bools else len(used)
    for node in x[:last]:
        s.positions(node, "written at computed places")
    values = s.of(op["values"])
    for node, other in zip(reversed(x[last:]), reversed(values), strict=False):
        if node.size == other.size:
            s.unify(node, other)
    extra = len(values) - len(x[last:])
    for node in values[: max(extra, 0)]:
        s.positions(node, "written at computed places")
    return [x]


@rule("aten.one_hot")
def one_hot(s: Solver, op: Op) -> list[Axes]:
    """A new axis that numbers the classes."""
    return [[*s.of(op["self"]), s.data(s.out_shape(op)[-1], "the classes of one_hot")]]


@rule("aten.nonzero", "aten.masked_select", "aten.bincount", "aten.unique", "aten._unique2",
      "aten.searchsorted", "aten.histc", "aten.unique_consecutive")  # fmt: skip
def counted(s: Solver, op: Op) -> list[Axes]:
    """How many there are depends on the values."""
    s.give_up(op, "position", f"{op.name.removeprefix('aten.')} looks for places")
    return [s.of(v) for v in op.outputs if v is not None]
