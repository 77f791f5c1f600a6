"""One of the models that a proof compares: raised once, run as often as needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Execute, Observe, Recorder
from tonsor.graph.trace import record_run
from tonsor.surgery.precision import Precision
from tonsor.types import Graph


class Side:
    """A model in the precision of a proof, made when it is first run.

    Every run starts from the same state: Python state and buffers are copied for it, the
    random numbers are the same. Parameters are shared between runs, as they are the most of
    it; should a run write into them, they are made anew.
    """

    def __init__(self, make: Callable[[], nn.Module], how: Precision) -> None:
        self.make = make
        self.how = how
        self.whole: nn.Module | None = None

    def run(
        self, probe: Inputs, execute: Execute | None = None, observe: Observe | None = None
    ) -> Any:
        """Run in eval mode, every operator through `execute`, and hold on to no result."""
        copy = self._copy()
        execute = self._guarded(copy, execute or self.how.plain)
        recorder = Recorder(copy, has_rule, execute, observe, lines=False, keep=False)
        given = self.how.inputs(probe)
        with recorder.recording():
            return given.call(copy)

    def record(self, probe: Inputs, execute: Execute) -> tuple[Graph, Any]:
        """Run and write down everything, which keeps all results until the end."""
        copy = self._copy()
        execute = self._guarded(copy, execute)
        recorder = Recorder(copy, has_rule, execute, lines=False)
        out: list[Any] = []
        graph = record_run(recorder, copy, self.how.inputs(probe), "real", out)
        return graph, out[0]

    def _copy(self) -> nn.Module:
        if self.whole is None:
            self.whole = self.how.settle_(self.make())
        torch.manual_seed(0)
        return clone(self.whole, _shared)

    def _guarded(self, copy: nn.Module, execute: Execute) -> Execute:
        """Forget the parameters as soon as an operator writes into one."""
        shared = {p.untyped_storage()._cdata for p in copy.parameters()}

        def guarded(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            for place, name in _written(func):
                value = args[place] if place < len(args) else kwargs.get(name)
                for tensor in value if isinstance(value, (list, tuple)) else (value,):
                    if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata in shared:
                        self.whole = None
            return execute(index, func, args, kwargs)

        return guarded


def _shared(name: str, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


@lru_cache(maxsize=4096)
def _written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return the arguments that an operator writes into, by place and by name."""
    return tuple(
        (i, a.name)
        for i, a in enumerate(func._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    )
