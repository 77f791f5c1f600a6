"""What plans are handled with: names and shapes, indices of indices, differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
from torch import nn

from tonsor.axes.tree import Mask
from tonsor.errors import PlanError
from tonsor.fibres import Fibres, Kind
from tonsor.graph.clone import named_tensors
from tonsor.graph.inputs import Inputs
from tonsor.surgery.slice import Kept
from tonsor.surgery.ties import Tie
from tonsor.types import Axis, Leaf


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """What only the first plan removes, and only the second; fibres by how many they are."""

    only_first: Mapping[str, tuple[int, ...]]
    only_second: Mapping[str, tuple[int, ...]]
    blocks_first: tuple[str, ...] = ()
    blocks_second: tuple[str, ...] = ()
    stripes_first: Mapping[str, int] = field(default_factory=dict)
    stripes_second: Mapping[str, int] = field(default_factory=dict)
    columns_first: Mapping[str, int] = field(default_factory=dict)
    columns_second: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(
            (self.only_first, self.only_second, self.blocks_first, self.blocks_second,
             self.stripes_first, self.stripes_second, self.columns_first, self.columns_second)
        )  # fmt: skip

    def __str__(self) -> str:
        lines = [f"- block {n}" for n in self.blocks_first]
        lines += [f"+ block {n}" for n in self.blocks_second]
        lines += [f"- {n}: {list(i)}" for n, i in self.only_first.items()]
        lines += [f"+ {n}: {list(i)}" for n, i in self.only_second.items()]
        lines += [f"- {n}: {count} stripes" for n, count in self.stripes_first.items()]
        lines += [f"+ {n}: {count} stripes" for n, count in self.stripes_second.items()]
        lines += [f"- {n}: {count} columns" for n, count in self.columns_first.items()]
        lines += [f"+ {n}: {count} columns" for n, count in self.columns_second.items()]
        return "\n".join(lines) or "the plans remove the same"


def beside(model: nn.Module, probe: Inputs | None) -> Inputs | None:
    """Bring a remembered input to where the model is, if that is one place."""
    devices = {t.device for _, t in named_tensors(model)}
    if probe is None or len(devices) != 1:
        return probe
    (device,) = devices
    return probe.map(lambda t: t.to(device))


def fingerprint(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name every parameter and buffer of a model with its shape."""
    return {n: tuple(t.shape) for n, t in named_tensors(model)}


def in_original(later: Mask, kept: Sequence[int] | None, size: int) -> Mask:
    """Say of the indices of an original which are left, given a mask of those left before."""
    if kept is None:
        return later
    out = np.zeros(size, dtype=np.bool_)
    out[np.asarray(kept)[later]] = True
    return out


def carried_ties(ties: Iterable[Tie], names: Mapping[str, Axis]) -> Iterator[Tie]:
    """Yield ties under the names that their groups have in the original."""
    for tie in ties:
        found = {names[n]: unit for n, unit in tie.items() if n in names}
        if len(found) == len(tie) and all(isinstance(a, Leaf) for a in found):
            yield {a.name: unit for a, unit in found.items() if isinstance(a, Leaf)}


def fibres_of_both(one: Mapping[str, Fibres], other: Mapping[str, Fibres]) -> dict[str, Fibres]:
    """Return the fibres that both keep; what is measured of one alone says nothing of both."""
    found = dict(one)
    for name, theirs in other.items():
        mine = found.get(name, theirs)
        if mine.kind != theirs.kind:
            message = (
                f"of '{name}' one plan keeps {mine.kind} and the other {theirs.kind}, and a layer "
                "can hold only either; plan the second with keep=[...] for the layers of the first"
            )
            raise PlanError(message)
        if (mine.kernel, len(mine.rows)) != (theirs.kernel, len(theirs.rows)):
            message = f"the plans see other {mine.kind} in '{name}'"
            raise PlanError(message)
        rows = tuple(a & b for a, b in zip(mine.rows, theirs.rows, strict=True))
        run = mine.run if mine.rows == theirs.rows == rows else ""
        found[name] = replace(mine, rows=rows, run=run)
    return found


def fibres_before(
    fibres: Mapping[str, Fibres],
    shapes: Mapping[str, Sequence[int]],
    keep: Mapping[str, Kept],
) -> dict[str, Fibres]:
    """Return fibres in terms of the channels that there were before some were cut."""
    found: dict[str, Fibres] = {}
    for name, later in fibres.items():
        kept = keep[name][later.dim] if name in keep else None
        if kept is not None:
            rows = [0] * shapes[name][later.dim]
            for index, row in zip(kept, later.rows, strict=True):
                rows[index] = row
            later = replace(later, rows=tuple(rows))
        found[name] = later
    return found


def in_terms_of(
    fibres: Mapping[str, Fibres],
    shapes: Mapping[str, Sequence[int]],
    keep: Mapping[str, Kept],
) -> dict[str, Fibres]:
    """Return fibres in terms of the channels that are left: the way back of `fibres_before`."""
    return {name: f.taking(keep.get(name)) for name, f in fibres.items() if name in shapes}


def fibres_text(fibres: Mapping[str, Fibres]) -> str:
    """Say how many fibres stay, and how many layers run by them, if that was measured."""
    return "; ".join(
        _text(kind, mine) for kind in get_args(Kind)
        if (mine := [f for f in fibres.values() if f.kind == kind])
    )  # fmt: skip


def _text(kind: str, fibres: Sequence[Fibres]) -> str:
    left, size = sum(f.left for f in fibres), sum(f.size for f in fibres)
    text = f"{left:,} of {size:,} {kind} stay in {len(fibres)} convolutions"
    runs = [f.run for f in fibres]
    return text if "" in runs else f"{text}, {runs.count(kind)} of which run by {kind}"


def fibres_apart(one: Mapping[str, Fibres], other: Mapping[str, Fibres]) -> dict[str, int]:
    """Count the fibres of each weight that only the first removes."""
    found: dict[str, int] = {}
    for name, mine in one.items():
        every = (1 << mine.positions) - 1
        theirs = other[name].rows if name in other else (every,) * len(mine.rows)
        lost = sum((b & ~a).bit_count() for a, b in zip(mine.rows, theirs, strict=True))
        if lost:
            found[name] = lost
    return found
