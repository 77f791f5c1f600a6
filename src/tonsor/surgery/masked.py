"""Run the masked model; where statistics are over cut axes, over what is kept of them.

Which operators these are depends on how the model runs. It is found out on shapes alone where
that can be, and from there on followed: a run that turns out to go another way, in operators or
in their sizes, is not believed, and is recorded in full instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule, solve
from tonsor.axes.tree import Mask, mask, project
from tonsor.errors import ProofError
from tonsor.graph.clone import clone
from tonsor.graph.fake import Faker
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Observe, Recorder
from tonsor.graph.trace import quiet, record_run
from tonsor.surgery.precision import Precision
from tonsor.surgery.reference import Reference
from tonsor.surgery.side import Side
from tonsor.types import Cut, Graph, Op, Solution

_ATTEMPTS = 4
_NOTHING = frozenset({"aten.detach", "aten.alias"})  # after `arange`, if somebody holds its result


class CannotRunError(Exception):
    """The masked original fails in this precision."""


def foresee(model: nn.Module, cut: Cut, probe: Inputs, how: Precision) -> Reference | None:
    """Find out on shapes alone how the masked model will run; nothing where that can't be."""
    try:
        return _reference(_shapes(model, probe, how), cut, how)
    except Exception:  # noqa: BLE001  a run on values will say what is wrong, if anything is
        return None


def run_masked(
    masked: Side, cut: Cut, probe: Inputs, foreseen: Reference | None
) -> tuple[Reference, Any]:
    """Return what the masked model computes, and the reference that it was computed by."""
    if foreseen is not None:
        follower = Follower(foreseen)
        try:
            out = masked.run(probe, follower.execute, follower.observe)
        except Exception:  # noqa: BLE001  found again below if what was foreseen is not to blame
            follower.lost = True
        if follower.arrived:
            return foreseen, out
    return _search(masked, cut, probe)


def _search(masked: Side, cut: Cut, probe: Inputs) -> tuple[Reference, Any]:
    """Read off a recording of the very run which operators need the kept indices.

    So a model which goes another way on other values is still followed.
    """
    reference, how = None, masked.how
    for _ in range(_ATTEMPTS):
        execute = how.plain if reference is None else reference.execute
        try:
            graph, out = masked.record(probe, execute)
        except Exception as error:
            raise CannotRunError from error
        if reference is not None and _same_way(graph, reference.solution.graph):
            return reference, out
        first = reference is None
        reference = _reference(graph, cut, how)
        if first and not reference.changes:
            return reference, out
    message = "the model runs other operators each time, so nothing can be proven of it"
    raise ProofError(message)


def _same_way(one: Graph, other: Graph) -> bool:
    return [o.name for o in one.ops] == [o.name for o in other.ops]


class Follower:
    """Run a model by a reference, and check that it goes the way that the reference knows."""

    def __init__(self, reference: Reference, observe: Observe | None = None) -> None:
        self.reference = reference
        self.observe_known = observe
        self.graph = reference.solution.graph
        self.at = -1
        self.lost = False

    @property
    def arrived(self) -> bool:
        """Whether the run was the foreseen one to its end."""
        rest = self.graph.ops[self.at + 1 :]
        return not self.lost and all(op.name in _NOTHING for op in rest)

    def execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the next operator."""
        name, ops = str(func.overloadpacket), self.graph.ops
        self.at += 1
        while self.at < len(ops) and ops[self.at].name != name and ops[self.at].name in _NOTHING:
            self.at += 1
        if self.lost or self.at >= len(ops) or ops[self.at].name != name:
            self._lose()
        return self.reference.execute(self.at, func, args, kwargs)

    def observe(self, op: Op, out: list[Tensor | None]) -> None:
        """Compare where the operator ran and what came out, and tell it as the one it is."""
        known = self.graph.ops[self.at]
        shapes = [None if v is None else self.graph.values[v].shape for v in known.outputs]
        if known.module != op.module or shapes != [None if t is None else t.shape for t in out]:
            self._lose()
        if self.observe_known is not None:
            self.observe_known(known, out)

    def _lose(self) -> None:
        self.lost = True  # kept, as a forward may catch what is raised
        message = "the model does not run as it was foreseen"
        raise RuntimeError(message)


def _shapes(model: nn.Module, probe: Inputs, how: Precision) -> Graph:
    faker = Faker()

    def fake(tensor: Tensor) -> Tensor:
        dtype = how.dtype(tensor.dtype)
        return faker.like(
            torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device="meta")
        )

    def named(name: str, tensor: Tensor) -> Tensor:
        new = fake(tensor)
        if isinstance(tensor, nn.Parameter):
            new._is_param = True  # type: ignore[attr-defined]  what makes it a Parameter
        return new

    with quiet():
        copy, given = how.settle_(clone(model, named)), probe.map(fake)
        with faker.mode:
            recorder = Recorder(copy, has_rule, execute=how.on_shapes(faker), lines=False)
            return record_run(recorder, copy, given, "fake")


def _reference(graph: Graph, cut: Cut, how: Precision) -> Reference:
    solution = solve(graph)
    return Reference(solution, _leaf_masks(solution, cut), how.run, cut.drops)


def _leaf_masks(solution: Solution, cut: Cut) -> dict[str, Mask]:
    """Read the masks of leaves off the kept indices of tensors."""
    masks: dict[str, Mask] = {}
    for name, kept in cut.keep.items():
        axes = solution.of(name)
        for axis, indices in zip(axes, kept, strict=True):
            if indices is not None:
                want = np.zeros(axis.size, dtype=np.bool_)
                want[list(indices)] = True
                for leaf, seen in project(axis, want):
                    masks[leaf.name] = masks.get(leaf.name, np.ones(leaf.size, np.bool_)) & seen
    for name, kept in cut.keep.items():
        for axis, indices in zip(solution.of(name), kept, strict=True):
            left = np.flatnonzero(mask(axis, masks)).tolist()
            if left != list(range(axis.size) if indices is None else indices):
                message = f"'{name}' is coupled differently in float64 than when it was planned"
                raise ProofError(message)
    return masks
