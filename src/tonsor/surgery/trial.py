"""Run a model with smaller tensors, before anything is cut, and see where it goes wrong.

Sizes live in the user's Python in ways that a trace can't tell apart: computed from shapes,
held in attributes, or written as literals. So a cut is *tried*: every tensor becomes as
small as the axes say, the user's own forward runs, and each operator's result must have the
shape that was predicted. Where the model allows it nothing is computed at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule
from tonsor.axes.tree import count
from tonsor.graph import shapes
from tonsor.graph.clone import clone
from tonsor.graph.fake import Faker
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Recorder
from tonsor.graph.trace import quiet
from tonsor.surgery.attributes import set_integer
from tonsor.types import Axis, Mend, Op, Solution


@dataclass(frozen=True, slots=True)
class Failure:
    """The first operator that did not do what was predicted."""

    op: int
    what: str


class _MismatchError(Exception):
    pass


class Trial:
    """A model, its solution, and the means to run it with other sizes."""

    def __init__(self, model: nn.Module, inputs: Inputs, solution: Solution) -> None:
        self.model = model
        self.inputs = inputs
        self.solution = solution
        self.fake = solution.graph.ran != "real"
        self.runs = 0
        self.faker = Faker()
        self.opaque: dict[int, Any] = {}

    def run(self, counts: Mapping[str, int], mends: Sequence[Mend]) -> Failure | None:
        """Run with `counts` indices left of each leaf; None means all went as predicted."""
        self.runs += 1
        with quiet(), torch.random.fork_rng([]):
            return self._run(counts, mends)

    def _run(self, counts: Mapping[str, int], mends: Sequence[Mend]) -> Failure | None:
        graph = self.solution.graph
        sizes = Sizes(counts)
        check = _Check(self.solution, sizes, strict=self.fake)

        def shrink(name: str, tensor: Tensor) -> Tensor:
            value = graph.tensors.get(name)
            axes = None if value is None else self.solution.axes[value]
            return self._small(name, tensor, None if axes is None else [sizes(a) for a in axes])

        copy = clone(self.model, shrink, self.opaque).eval()
        for item in mends:
            if sizes(item.axis) != item.axis.size:
                set_integer(copy.get_submodule(item.module), item.path, sizes(item.axis))
        execute = shapes.executor(self.faker) if self.fake else None
        recorder = Recorder(copy, has_rule, execute=execute, observe=check, lines=False)
        given = self.inputs.map(self._given)
        try:
            with self.faker.mode if self.fake else nullcontext(), recorder.recording():
                given.call(copy)
        except _MismatchError as error:
            return Failure(check.at, str(error))
        except Exception as error:  # noqa: BLE001  whatever the user's code raises is the finding
            return Failure(
                min(check.at, len(graph.ops) - 1), f"{type(error).__name__}: {error}".split("\n")[0]
            )
        if check.rest() and not check.astray:
            return Failure(check.at, "the forward pass ended early")
        return None

    def _small(self, name: str, tensor: Tensor, shape: Sequence[int] | None) -> Tensor:
        if self.fake:
            return self.faker.named(name, tensor, shape)
        small = tensor.detach()
        for dim, n in enumerate(shape or ()):
            small = small.narrow(dim, 0, n)
        small = small.clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        return nn.Parameter(small, requires_grad=False) if is_parameter else small

    def _given(self, tensor: Tensor) -> Tensor:
        return self.faker.like(tensor) if self.fake else tensor.detach().clone()


class Sizes:
    """The size of an axis under given counts, remembered."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = counts
        self.memo: dict[int, tuple[Axis, int]] = {}

    def __call__(self, axis: Axis) -> int:
        """Return how many indices of an axis are left."""
        known = self.memo.get(id(axis))
        if known is None:
            known = self.memo[id(axis)] = (axis, count(axis, self.counts))
        return known[1]


_COPIES = frozenset(
    {"aten.contiguous", "aten.clone", "aten.to", "aten._to_copy", "aten.alias", "aten.detach"}
)


class _Check:
    """Compare each operator's result with what was predicted.

    A copy may be made or left out depending on sizes, so copies are not counted on. A run on
    real values may go another way than before, as routing by value does: from there on
    nothing can be compared, and the numeric proof is what remains.
    """

    def __init__(self, solution: Solution, sizes: Sizes, *, strict: bool) -> None:
        self.solution = solution
        self.ops = solution.graph.ops
        self.sizes = sizes
        self.strict = strict
        self.astray = False
        self.at = 0

    def rest(self) -> bool:
        """Whether operators that matter were expected and did not run."""
        return any(op.name not in _COPIES for op in self.ops[self.at :])

    def __call__(self, op: Op, out: list[Tensor | None]) -> None:
        if self.astray:
            return
        while self.at < len(self.ops) and self.ops[self.at].name != op.name:
            if self.ops[self.at].name not in _COPIES:
                break
            self.at += 1
        if self.at >= len(self.ops) or self.ops[self.at].name != op.name:
            if op.name in _COPIES:
                return
            self.astray = True
            if self.strict:
                self.at = min(self.at, len(self.ops) - 1)
                message = f"it runs {op.name} where it ran another operator before"
                raise _MismatchError(message)
            return
        for value, tensor in zip(self.ops[self.at].outputs, out, strict=False):
            if value is None or tensor is None:
                continue
            wanted = tuple(self.sizes(a) for a in self.solution.axes[value])
            if tuple(tensor.shape) != wanted:
                message = f"a result of shape {tuple(tensor.shape)} where {wanted} was expected"
                raise _MismatchError(message)
        self.at += 1
