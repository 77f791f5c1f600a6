"""One of the models that a proof compares: raised once, run as often as needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tonsor.axes.solve import has_rule
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Execute, Observe, Recorder
from tonsor.graph.trace import record_run
from tonsor.surgery.fibre_layers import mask_as
from tonsor.surgery.late import Late, Reader, worth_it, written
from tonsor.surgery.precision import Precision
from tonsor.types import Cut, Graph

T = TypeVar("T")


class Side:
    """A model in the precision of a proof, with everything but the kept indices zero.

    Every run starts from the same state: Python state and buffers are copied for it, the
    random numbers are the same. Parameters are shared between runs, as they are the most of
    it. Large ones are raised as they are read (`late`); a model that does not run so is
    raised whole.
    """

    def __init__(
        self,
        model: nn.Module,
        how: Precision,
        cut: Cut | None = None,
        *,
        late: bool = True,
    ) -> None:
        self.model = model
        self.how = how
        self.cut = cut or Cut({}, {})
        self.late = late
        self.whole: nn.Module | None = None
        self.spare: list[Tensor] = []

    def run(
        self, probe: Inputs, execute: Execute | None = None, observe: Observe | None = None
    ) -> Any:
        """Run in eval mode, every operator through `execute`, and hold on to no result."""

        def once(copy: nn.Module, guarded: Execute) -> Any:
            recorder = Recorder(copy, has_rule, guarded, observe, lines=False, keep=False)
            given = self.how.inputs(probe)
            with recorder.recording():
                return given.call(copy)

        return self._started(once, execute or self.how.plain, once_only=observe is not None)

    def record(self, probe: Inputs, execute: Execute) -> tuple[Graph, Any]:
        """Run and write down everything, which keeps all results until the end."""

        def once(copy: nn.Module, guarded: Execute) -> tuple[Graph, Any]:
            recorder = Recorder(copy, has_rule, guarded, lines=False)
            out: list[Any] = []
            graph = record_run(recorder, copy, self.how.inputs(probe), "real", out)
            return graph, out[0]

        return self._started(once, execute, once_only=False)

    def _started(
        self, once: Callable[[nn.Module, Execute], T], execute: Execute, *, once_only: bool
    ) -> T:
        """Run once; if late parameters may be why that fails, once more without them.

        Not so where somebody looks on, who would see the beginning twice.
        """
        if self.late:
            reader = Reader(execute, self.spare)
            failure = None
            try:
                out = once(self._copy(), self._guarded(reader.execute))
                if not reader.refused:
                    return out
            except Exception as error:  # noqa: BLE001  met again below, if it is the model's own
                failure = error
            if once_only:
                message = "not with late parameters, or not at all"
                raise RuntimeError(message) from failure
            self.late, self.whole = False, None
            self.spare.clear()
        return once(self._copy(), self._guarded(execute))

    def _copy(self) -> nn.Module:
        if self.whole is None:
            self.whole = self.how.settle_(clone(self.model, self._raised))
            parameters = self.whole.parameters()
            self.shared = {p.untyped_storage()._cdata for p in parameters if type(p) is not Late}
        torch.manual_seed(0)
        return clone(self.whole, _shared)

    def _raised(self, name: str, tensor: Tensor) -> Tensor:
        dtype = self.how.dtype(tensor.dtype)
        whole = name not in self.cut.fibres
        if self.late and dtype != tensor.dtype and whole and worth_it(tensor):
            return Late(tensor, self.cut.keep.get(name), dtype)
        new = self.how.parameter(name, tensor)
        if isinstance(tensor, nn.Parameter):
            mask_as(self.cut, name, new)
        return new

    def _guarded(self, execute: Execute) -> Execute:
        """Forget the parameters as soon as an operator writes into one."""

        def guarded(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            for tensor in written(func, args, kwargs):
                if tensor.untyped_storage()._cdata in self.shared:
                    self.whole = None
            return execute(index, func, args, kwargs)

        return guarded


def _shared(name: str, tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach().clone()
