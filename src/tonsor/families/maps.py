"""Feature maps of a group: where its pieces can be seen while the model runs.

A piece is seen *as it is made*, in what comes out of the weights that make it, after a norm with
weights that follows at once and before any activation; or *as it is read*, in what goes into the
next weights. Both are found in the recorded run. Where something else than a norm reads what the
weights make as well, it is seen before the norm, for only there it is whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.axes.uses import Use
from tonsor.families.channels import makes_in, sums_in, times, views
from tonsor.types import Axis, Group, Op, Product, leaves

Side = Literal["out", "in"]
Where = Literal["made", "read"]
_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")


@dataclass(frozen=True, slots=True)
class Samples:
    """Where in a tensor its samples lie: dimension `dim`, before or after what shares it."""

    dim: int
    first: bool = True
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A tensor of the run that shows the pieces of a group.

    It comes out of, or goes into, the `call`-th call that is given `parameter`, as the `place`-th
    tensor of what comes out. `axes` are those of the tensor, whose dimension `dim` the group runs
    through, and `fixed` what each size must be a multiple of, or, below zero, must be.
    """

    group: str
    parameter: str
    call: int
    side: Side
    place: int
    shape: tuple[int, ...]
    axes: tuple[Axis, ...]
    dim: int
    samples: Samples | None
    fixed: tuple[int, ...]

    def fits(self, tensor: Tensor, samples: int) -> bool:
        """Whether this can be the tensor of the recorded run, of so many samples now."""
        if tensor.dim() != len(self.shape):
            return False
        for size, fixed in zip(tensor.shape, self.fixed, strict=True):
            if size != -fixed if fixed < 0 else size % fixed:
                return False
        if self.samples is None:
            return True
        size = tensor.shape[self.samples.dim]
        return size == samples if self.samples.alone else size % samples == 0

    def maps(self, tensor: Tensor, samples: int) -> Iterator[Tensor]:
        """View the tensor as `[piece, sample, ...]`, once for each time the group is in it.

        A tensor that all samples share is shown as that of one sample.
        """
        front = tensor.movedim(self.dim, 0)
        at = None if self.samples is None else self.samples.dim + (self.samples.dim < self.dim)
        for view in views(front, self.axes[self.dim], self.group):
            if at is None or self.samples is None:
                yield view.unsqueeze(1)
                continue
            # Views keep what follows the group's own dimension as it was, at the end.
            shown = view.movedim(at - front.dim(), 1)
            if not self.samples.alone:  # windows of a picture, say
                sizes = (samples, -1) if self.samples.first else (-1, samples)
                shown = shown.unflatten(1, sizes)
                shown = shown if self.samples.first else shown.movedim(2, 1)
            yield shown

    def __str__(self) -> str:
        verb = "comes out of" if self.side == "out" else "goes into"
        again = f", use {self.call + 1}" if self.call else ""
        return f"what {verb} '{self.parameter}'{again}"


@dataclass(frozen=True, slots=True)
class Run:
    """What sites are found by: what reads each value, and the norms among that.

    `norms` maps a value to the weight of the norm that reads it, the call and the use. `batch` is
    the axis of the samples, and `known` are the leaves whose sizes do not depend on the data.
    """

    readers: Counter[int]
    norms: Mapping[int, tuple[str, int, Use]]
    batch: Axis | None
    known: frozenset[str]


def as_run(anatomy: Anatomy) -> Run:
    """Look through the recorded run once, for the sites of all groups."""
    graph = anatomy.graph
    readers = Counter(v for op in graph.ops for v in dict.fromkeys(op.inputs))
    readers.update(v for _, v in graph.outputs)
    norms: dict[int, tuple[str, int, Use]] = {}
    for name, found in anatomy.uses.items():
        for call, use in enumerate(found):
            if _is_norm(graph.ops[use.op]):
                for value in use.data:
                    norms.setdefault(value, (name, call, use))
    batch = next((a[0] for a in (anatomy.solution.axes[v] for _, v in graph.inputs) if a), None)
    return Run(readers, norms, batch, frozenset(anatomy.by_name))


def sites(anatomy: Anatomy, group: Group, where: Where, run: Run | None = None) -> list[Site]:
    """Return where the pieces of a group can be seen, once for each tensor of the run."""
    run = run or as_run(anatomy)
    along = Counter(m.tensor for m in group.members if m.tensor in anatomy.parameters)
    found: dict[int, Site] = {}
    for name, dims in along.items():
        for call, use in enumerate(anatomy.uses.get(name, ())):
            seen: Iterator[tuple[int, Site]] = iter(())
            if where == "made" and makes_in(anatomy, use, name, group.name, twice=dims > 1):
                seen = _after_norm(anatomy, run, group.name, name, call, use)
            elif where == "read" and sums_in(anatomy, use, name, group.name, twice=dims > 1):
                seen = _sites(anatomy, run, group.name, name, call, use, "in")
            for value, site in seen:
                found.setdefault(value, site)
    return list(found.values())


def _after_norm(
    anatomy: Anatomy, run: Run, leaf: str, name: str, call: int, use: Use
) -> Iterator[tuple[int, Site]]:
    """Yield the site behind a norm that alone reads what a weight makes, or behind the weight."""
    for value, site in _sites(anatomy, run, leaf, name, call, use, "out"):
        behind: list[tuple[int, Site]] = []
        if value in run.norms and run.readers[value] == 1:
            behind = list(_sites(anatomy, run, leaf, *run.norms[value], "out"))
        yield from behind or [(value, site)]


def _is_norm(op: Op) -> bool:
    return any(n in op.name for n in _NORMS)


def _sites(
    anatomy: Anatomy, run: Run, leaf: str, name: str, call: int, use: Use, side: Side
) -> Iterator[tuple[int, Site]]:
    """Yield every tensor of a call that shows a leaf, and that something reads."""
    values = anatomy.graph.ops[use.op].outputs if side == "out" else use.data
    for place, value in enumerate(values):
        if value is None or not run.readers[value]:
            continue
        axes, shape = anatomy.solution.axes[value], anatomy.graph.values[value].shape
        for dim, axis in enumerate(axes):
            if times(axis, leaf):
                fixed = tuple(_fixed(a, run.known) for a in axes)
                samples = _samples(axes, dim, run.batch)
                yield value, Site(leaf, name, call, side, place, shape, axes, dim, samples, fixed)
                break


def _samples(axes: tuple[Axis, ...], own: int, batch: Axis | None) -> Samples | None:
    """Find the dimension of the samples, other than that of the group."""
    for dim, axis in enumerate(axes):
        if dim == own or batch is None:
            continue
        if axis == batch:
            return Samples(dim)
        if isinstance(axis, Product) and batch in (axis.factors[0], axis.factors[-1]):
            return Samples(dim, axis.factors[0] == batch, alone=False)
    return None


def _fixed(axis: Axis, known: frozenset[str]) -> int:
    """What a size is a multiple of; below zero, what it is."""
    if all(f.name in known for f in leaves(axis)):
        return -axis.size
    if not isinstance(axis, Product):
        return 1
    size = 1
    for factor in axis.factors:
        size *= max(1, -_fixed(factor, known))
    return size
