"""Run a model from some operator on, with what was computed before put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_map

from tonsor.graph.inputs import Inputs
from tonsor.graph.record import Recorder
from tonsor.sensitivity.script import Same, Script
from tonsor.types import Ref


class DiffersError(BaseException):
    """A model does not follow the script; `at` is the first operator that differs.

    No `except Exception` of the model may swallow it.
    """

    def __init__(self, at: int) -> None:
        super().__init__(f"operator {at} is another")
        self.at = at


class _ReachedError(BaseException):
    """Enough is computed; no `except Exception` of the model may stop this."""


@dataclass(frozen=True, slots=True)
class State:
    """What a run needs to go on at operator `at`: the tensors that are still to be read.

    `seen` are the inputs it began with.
    """

    at: int
    tensors: Mapping[int, Tensor]
    seen: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        held = {_memory(t): t.untyped_storage().nbytes() for t in self.tensors.values()}
        return sum(held.values()) + sum(t.nbytes for t in self.seen)

    def began_with(self, inputs: Inputs) -> bool:
        """Whether these are the inputs that it began with."""
        now = [t for _, t in inputs.tensors()]
        alike = zip(self.seen, now, strict=False)
        return len(now) == len(self.seen) and all(torch.equal(a, b) for a, b in alike)


def run_until(
    model: nn.Module, script: Script, inputs: Inputs, at: int, start: State | None = None
) -> State:
    """Run the whole model up to an operator, from a state before it if there is one."""
    live = script.live(at)
    held: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {}

    def compute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if index == at:
            found.update(copied(held))
            raise _ReachedError
        if index >= len(script.lines) or not script.lines[index].fits(func, args, kwargs):
            raise DiffersError(index)
        out = func(*args, **kwargs)
        _hold(held, live, script.lines[index].result, out)
        return out

    began = tuple(t.detach().clone() for _, t in inputs.tensors())
    if start is not None:
        began = start.seen
    try:
        _play(model, script, inputs, start, compute, held, live)
    except _ReachedError:
        return State(at, found, began)
    raise DiffersError(len(script.lines))


def run_from(model: nn.Module, script: Script, inputs: Inputs, start: State) -> Any:
    """Run a cut model from a state on, and return what it returns."""

    def compute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(*args, **kwargs)

    return _play(model, script, inputs, start, compute, {}, frozenset())


def run(model: nn.Module, inputs: Inputs) -> Any:
    """Run a model all through, with the same random numbers each time."""
    torch.manual_seed(0)
    return inputs.call(model)


def copied(tensors: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Copy tensors; those that share memory share it again, and strides are kept."""
    memories: dict[int, Any] = {}
    out = {}
    for value, tensor in tensors.items():
        memory = tensor.untyped_storage()
        if memory._cdata not in memories:
            memories[memory._cdata] = memory.clone()
        out[value] = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
            memories[memory._cdata], tensor.storage_offset(), tensor.shape, tensor.stride()
        )
    return out


Compute = Callable[[int, Any, tuple[Any, ...], dict[str, Any]], Any]


def _play(
    model: nn.Module,
    script: Script,
    inputs: Inputs,
    start: State | None,
    compute: Compute,
    held: dict[int, Tensor],
    live: frozenset[int],
) -> Any:
    """Run a model with what a state knows in the place of the operators before it."""
    begin = 0 if start is None else start.at
    known = {} if start is None else copied(start.tensors)

    def given(ref: Any, anew: bool) -> Any:
        if not isinstance(ref, Ref):
            return ref
        tensor = known.get(ref.value)
        if tensor is None:
            return script.blank(ref.value, anew=anew)
        return tensor.detach() if anew else tensor

    def execute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if index >= begin:
            return compute(index, func, args, kwargs)
        line = script.lines[index]
        if not line.fits(func, args, kwargs):
            raise DiffersError(index)
        if isinstance(line.result, Same):
            return args[line.result.place]
        if line.is_new and isinstance(line.result, Ref) and line.result.value not in known:
            return func(*(_real(a) for a in args), **kwargs)
        # torch makes views of what a view operator returns, and that only once.
        return tree_map(lambda ref: given(ref, line.is_view), line.result)

    order = {id(t): v for v, (_, t) in zip(script.inputs, inputs.tensors(), strict=True)}

    def handed(tensor: Tensor) -> Tensor:
        if start is None:
            return tensor.detach().clone()
        return known.get(order[id(tensor)], tensor)

    mine = inputs.map(handed)
    if start is None:
        known = {v: t for v, (_, t) in zip(script.inputs, mine.tensors(), strict=True)}
    held.update({v: t for v, t in known.items() if v in live})
    torch.manual_seed(0)
    with Recorder(model, execute=execute, lines=False, keep=False).recording():
        return mine.call(model)


def _real(value: Any) -> Any:
    """Return a real tensor in the place of a blank of which only the shape matters."""
    if not isinstance(value, FakeTensor):
        return value
    like = {"dtype": value.dtype, "device": value.fake_device}
    return torch.empty_strided(value.shape, value.stride(), **like)


def _hold(held: dict[int, Tensor], live: frozenset[int], result: Any, out: Any) -> None:
    """Remember the results of an operator that are read later on."""
    if isinstance(result, Ref):
        if result.value in live:
            held[result.value] = out
    elif isinstance(result, (list, tuple)):
        for one, tensor in zip(result, out, strict=True):
            _hold(held, live, one, tensor)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
