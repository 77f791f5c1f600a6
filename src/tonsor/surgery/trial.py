"""Run a model with smaller tensors, before anything is cut, and see where it goes wrong.

Sizes live in the user's Python in ways that a trace can't tell apart: computed from shapes,
held in attributes, or written as literals. So a cut is *tried*: every tensor becomes as
small as the axes say, the user's own forward runs, and each operator's result must have the
shape that was predicted. Where the model allows it nothing is computed at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tonsor.axes.solve import has_rule
from tonsor.axes.tree import count
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Recorder
from tonsor.graph.trace import empty_like, quiet
from tonsor.surgery.attributes import set_integer
from tonsor.types import Axis, Mend, Op, Solution


@dataclass(frozen=True, slots=True)
class Failure:
    """The first operator that did not do what was predicted."""

    op: int
    what: str


class _Mismatch(Exception):
    pass


class Trial:
    """A model, its solution, and the means to run it with other sizes."""

    def __init__(self, model: nn.Module, inputs: Inputs, solution: Solution) -> None:
        self.model = model
        self.inputs = inputs
        self.solution = solution
        self.fake = solution.graph.ran != "real"
        self.runs = 0

    def run(self, counts: Mapping[str, int], mends: Sequence[Mend]) -> Failure | None:
        """Run with `counts` indices left of each leaf; None means all went as predicted."""
        self.runs += 1
        with quiet(), torch.random.fork_rng([]):
            if not self.fake:
                return self._run(counts, mends)
            with FakeTensorMode(allow_non_fake_inputs=True):
                return self._run(counts, mends)

    def _run(self, counts: Mapping[str, int], mends: Sequence[Mend]) -> Failure | None:
        graph = self.solution.graph
        sizes = Sizes(counts)
        check = _Check(self.solution, sizes, strict=self.fake)

        def shrink(name: str, tensor: Tensor) -> Tensor:
            value = graph.tensors.get(name)
            axes = None if value is None else self.solution.axes[value]
            return self._small(tensor, tensor.shape if axes is None else [sizes(a) for a in axes])

        copy = clone(self.model, shrink).eval()
        for item in mends:
            if sizes(item.axis) != item.axis.size:
                set_integer(copy.get_submodule(item.module), item.path, sizes(item.axis))
        recorder = Recorder(copy, has_rule, observe=check, lines=False)
        given = self.inputs.map(self._given)
        try:
            with recorder.recording():
                given.call(copy)
        except _Mismatch as error:
            return Failure(len(recorder.ops) - 1, str(error))
        except Exception as error:  # noqa: BLE001  whatever the user's code raises is the finding
            index = min(len(recorder.ops), len(graph.ops) - 1)
            return Failure(index, f"{type(error).__name__}: {error}".split("\n")[0])
        if len(recorder.ops) < len(graph.ops) and not check.astray:
            return Failure(len(recorder.ops), "the forward pass ended early")
        return None

    def _small(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        if self.fake:
            device = "cpu" if tensor.is_meta else tensor.device
            small = torch.empty(tuple(shape), dtype=tensor.dtype, device=device)
        else:
            small = tensor.detach()
            for dim, n in enumerate(shape):
                small = small.narrow(dim, 0, n)
            small = small.clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        return nn.Parameter(small, requires_grad=False) if is_parameter else small

    def _given(self, tensor: Tensor) -> Tensor:
        return empty_like(tensor) if self.fake else tensor.detach().clone()


class Sizes:
    """The size of an axis under given counts, remembered."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts
        self.memo: dict[int, tuple[Axis, int]] = {}

    def __call__(self, axis: Axis) -> int:
        known = self.memo.get(id(axis))
        if known is None:
            known = self.memo[id(axis)] = (axis, count(axis, self.counts))
        return known[1]


class _Check:
    """Compare each operator's result with what was predicted.

    A run on real values may go another way than before, as routing by value does: from
    there on nothing can be compared, and the numeric proof is what remains.
    """

    def __init__(self, solution: Solution, sizes: Sizes, *, strict: bool) -> None:
        self.solution = solution
        self.sizes = sizes
        self.strict = strict
        self.astray = False

    def __call__(self, op: Op, out: list[Tensor | None]) -> None:
        ops = self.solution.graph.ops
        if self.astray:
            return
        if op.index >= len(ops) or ops[op.index].name != op.name:
            self.astray = True
            if self.strict:
                message = f"it runs {op.name} where it ran another operator before"
                raise _Mismatch(message)
            return
        for value, tensor in zip(ops[op.index].outputs, out, strict=False):
            if value is None or tensor is None:
                continue
            wanted = tuple(self.sizes(a) for a in self.solution.axes[value])
            if tuple(tensor.shape) != wanted:
                message = f"a result of shape {tuple(tensor.shape)} where {wanted} was expected"
                raise _Mismatch(message)
