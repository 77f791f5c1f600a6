"""Every noun that crosses a folder: what was recorded, what an axis is, what goes together.

All of them are frozen: a stage never changes what an earlier one handed on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

from tonsor.drops import Drop
from tonsor.fibres import Fibres

# ---------------------------------------------------------------- the recorded run


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor among an operator's arguments, by the id of its value."""

    value: int


@dataclass(frozen=True, slots=True)
class Source:
    """The line of the user's own code from which an operator was called."""

    file: str
    line: int
    function: str
    code: str = ""

    def __str__(self) -> str:
        where = "/".join(self.file.replace("\\", "/").split("/")[-2:])
        text = f"{where}:{self.line} in {self.function}"
        return f"{text}: `{self.code}`" if self.code else text


Origin = Literal["parameter", "buffer", "input", "constant", "op"]


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor of the recorded run."""

    id: int
    shape: tuple[int, ...]
    dtype: str
    origin: Origin
    name: str = ""


@dataclass(frozen=True, slots=True)
class Op:
    """One recorded operator; `args` holds every argument of its schema by name."""

    index: int
    name: str
    overload: str
    args: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    module: str
    source: Source | None
    pointwise: bool = False

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the argument called `name`, or `default` where it is absent or None."""
        value = self.args.get(name)
        return default if value is None else value

    @property
    def inputs(self) -> Iterator[int]:
        """The ids of all tensors among the arguments, in order."""
        return refs(tuple(self.args.values()))


def refs(tree: Any) -> Iterator[int]:
    """Yield the value ids inside a nest of tuples, lists and dicts."""
    if isinstance(tree, Ref):
        yield tree.value
    elif isinstance(tree, (tuple, list)):
        for item in cast("Sequence[Any]", tree):
            yield from refs(item)
    elif isinstance(tree, Mapping):
        for item in cast("Mapping[Any, Any]", tree).values():
            yield from refs(item)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module: what went in, what came out, and the operators in between.

    `args`, `kwargs` and `out` are nests with a `Ref` in the place of each tensor; what is neither
    a tensor, a container nor a plain value is an `Unknown`. `ops[first:stop]` ran inside.
    """

    module: str
    first: int
    stop: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something handed to or returned by a module that is no tensor and holds none in the open.

    `token` tells it from others of its kind in the same run.
    """

    kind: str
    token: int = 0


@dataclass(frozen=True)
class Graph:
    """One recorded forward pass: operators in order, and the tensors between them.

    `tensors` maps every parameter and buffer name to its value (tied names share one),
    `unreached` lists parameters that no recorded operator read, `ran` says whether the
    operators were computed (`real`) or only their shapes (`fake`). `calls` are the calls of
    modules in the order in which they began; `torch.export` knows none.
    """

    ops: tuple[Op, ...]
    values: tuple[Value, ...]
    tensors: Mapping[str, int]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    unreached: tuple[str, ...]
    module_types: Mapping[str, str]
    ran: Literal["real", "fake", "export"] = "real"
    calls: tuple[Call, ...] = ()

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Names of parameters only, to their values."""
        return {n: v for n, v in self.tensors.items() if self.values[v].origin == "parameter"}

    @cached_property
    def name_of(self) -> Mapping[int, str]:
        """The first name of each parameter and buffer value."""
        names: dict[int, str] = {}
        for name, value in self.tensors.items():
            names.setdefault(value, name)
        return names

    def __str__(self) -> str:
        return f"Graph of {len(self.ops)} operators and {len(self.tensors)} tensors ({self.ran})"


# ---------------------------------------------------------------- axes


@dataclass(frozen=True, slots=True)
class Leaf:
    """`size` indices that live or die on their own."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Product:
    """Row-major nesting: index = i · |inner| + j."""

    factors: tuple[Axis, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Concat:
    """Segments side by side."""

    segments: tuple[Axis, ...]
    size: int


Axis: TypeAlias = Leaf | Product | Concat


def product(*factors: Axis) -> Product:
    """Nest axes, the outermost first."""
    return Product(factors, math.prod(f.size for f in factors))


def concat(*segments: Axis) -> Concat:
    """Put axes side by side."""
    return Concat(segments, sum(s.size for s in segments))


def leaves(axis: Axis) -> Iterator[Leaf]:
    """Yield the leaves of an axis from the outside in, repeated ones included."""
    if isinstance(axis, Leaf):
        yield axis
    else:
        for part in axis.factors if isinstance(axis, Product) else axis.segments:
            yield from leaves(part)


PinKind = Literal[
    "input",
    "output",
    "data",
    "kernel",
    "unknown_op",
    "position",
    "literal",
    "conflict",
    "head_dim",
    "escape",
    "scripted",
    "value",
    "keep",
]


@dataclass(frozen=True, slots=True)
class Pin:
    """Why an axis may not be cut: what was seen, where, and from which line."""

    kind: PinKind
    detail: str
    op: str = ""
    module: str = ""
    source: Source | None = None

    def __str__(self) -> str:
        text = self.detail
        if self.op and self.op not in text:
            text += f" ({self.op})"
        if self.module:
            text += f" in '{self.module}'"
        return f"{text}, at {self.source}" if self.source else text


@dataclass(frozen=True, slots=True)
class Mix:
    """An operator that mixes along axes in a way for which zero is not the neutral element.

    In the masked reference such an operator runs on the kept indices only.
    `approximate` is False where zeroing one operand is all that this means.
    """

    op: int
    axes: tuple[Axis, ...]
    what: str
    approximate: bool = True


@dataclass(frozen=True)
class Solution:
    """What the solver found: an axis for every dimension of every recorded tensor."""

    graph: Graph
    axes: Mapping[int, tuple[Axis, ...]]
    pins: Mapping[str, tuple[Pin, ...]]
    roles: Mapping[str, frozenset[str]]
    mixes: tuple[Mix, ...]
    sizes: tuple[tuple[int, str, int | None, Axis], ...]
    """Integer arguments known to be sizes: (op, argument, place in a list, axis)."""

    def of(self, name: str) -> tuple[Axis, ...]:
        """Return the axes of a parameter or buffer."""
        return self.axes[self.graph.tensors[name]]


# ---------------------------------------------------------------- what goes together


@dataclass(frozen=True, slots=True)
class Member:
    """One dimension of one parameter or buffer that a leaf runs through."""

    tensor: str
    dim: int
    axis: Axis

    def __str__(self) -> str:
        return f"{self.tensor}[{self.dim}]"


@dataclass(frozen=True, slots=True)
class Mend:
    """An integer attribute of a module that must follow the size of an axis.

    `path` leads from the module to the integer: an attribute name, then indices.
    """

    module: str
    path: tuple[str | int, ...]
    axis: Axis

    def __str__(self) -> str:
        steps = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)
        return f"{self.module or 'model'}{steps}"


GroupKind = Literal["channels", "heads", "head_dim"]


@dataclass(frozen=True, slots=True)
class Group:
    """Coupled slices: index i of every member is removed together, or not at all.

    Groups of one `tie` lose indices together too: equally many steps, of `unit` indices each.
    """

    name: str
    size: int
    kind: GroupKind
    members: tuple[Member, ...]
    pins: tuple[Pin, ...] = ()
    approximate: tuple[str, ...] = ()
    tie: int | None = None
    unit: int = 1

    @property
    def prunable(self) -> bool:
        """Whether nothing pins it."""
        return not self.pins


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution of the model with its geometry."""

    name: str
    weight: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool
    input_size: tuple[int, ...]
    output_size: tuple[int, ...]
    in_axis: Axis
    out_axis: Axis


@dataclass(frozen=True, slots=True)
class Cut:
    """What surgery needs and nothing more: kept indices, new attribute values, what else goes.

    `keep` maps a tensor's name to the kept indices of each dimension (None = all),
    `sizes` maps (module, attribute path) to the new integer, `fibres` the weights of
    convolutions to the stripes or columns that stay, in the coordinates of the original.
    """

    keep: Mapping[str, tuple[tuple[int, ...] | None, ...]]
    sizes: Mapping[tuple[str, tuple[str | int, ...]], int]
    drops: tuple[Drop, ...] = ()
    fibres: Mapping[str, Fibres] = field(default_factory=dict[str, Fibres])
