"""What plans are handled with: names and shapes, indices of indices, differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from tonsor.axes.tree import Mask
from tonsor.errors import PlanError
from tonsor.graph.clone import named_tensors
from tonsor.graph.inputs import Inputs
from tonsor.surgery.slice import cut_tensor
from tonsor.surgery.ties import Tie
from tonsor.types import Axis, Leaf


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Indices and blocks that only the first plan removes, and only the second."""

    only_first: Mapping[str, tuple[int, ...]]
    only_second: Mapping[str, tuple[int, ...]]
    blocks_first: tuple[str, ...] = ()
    blocks_second: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.only_first or self.only_second or self.blocks_first or self.blocks_second)

    def __str__(self) -> str:
        lines = [f"- block {n}" for n in self.blocks_first]
        lines += [f"+ block {n}" for n in self.blocks_second]
        lines += [f"- {n}: {list(i)}" for n, i in self.only_first.items()]
        lines += [f"+ {n}: {list(i)}" for n, i in self.only_second.items()]
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


def cut_shape(tensor: Tensor, kept: Sequence[Sequence[int] | None]) -> tuple[int, ...]:
    """Return the shape that is left of a tensor."""
    return tuple(s if k is None else len(k) for s, k in zip(tensor.shape, kept, strict=True))


def sliced_state(name: str, key: str, value: Any, old: Tensor, kept: Any) -> Any:
    """Take what stays of something that an optimizer remembers of a parameter."""
    if kept is None or not isinstance(value, Tensor) or value.numel() == 1:
        return value
    if value.shape != old.shape:
        message = (
            f"the optimizer keeps '{key}' of shape {tuple(value.shape)} for '{name}' of shape "
            f"{tuple(old.shape)}, which can't be sliced; make a new optimizer for the slim model"
        )
        raise PlanError(message)
    return cut_tensor(value, kept)


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
