"""How the cuts of one group are run: from what is known already, or all through."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tonsor.graph.inputs import Inputs, tensors_in
from tonsor.sensitivity.replay import DiffersError, State, run, run_from
from tonsor.sensitivity.script import Script

_CLOSE = 1e-5


class Known(Protocol):
    """What is known of the whole model."""

    def script(self, inputs: Inputs) -> Script | None:
        """Return what the model does on inputs of this form."""
        ...

    def state(self, number: int, script: Script, inputs: Inputs, at: int) -> State:
        """Return what the model has computed before an operator."""
        ...


class Reuse:
    """Run cut models from the first operator that the cut touches, as long as that is right.

    The first cut is run both ways. If the answers differ, or going on from a state takes longer
    for small minibatches, all are run all through.
    """

    def __init__(self, known: Known, touched: Iterable[str], cuts: int) -> None:
        self.known = known
        self.touched = frozenset(touched)
        self.cuts = cuts
        self.note = ""
        self.proven = False
        self.given_up = False
        self._at: dict[Script, int] = {}
        self._state: tuple[int, State | None] = (-1, None)

    def output(self, number: int, model: nn.Module, inputs: Inputs) -> Any:
        """Return what a cut model returns on a minibatch, the `number`-th."""
        script = None if self.given_up else self.known.script(inputs)
        at = self._start(script)
        if script is None or at == 0:
            return run(model, inputs)
        began = _now()
        state = self._before(number, script, inputs, at)
        if state is None:
            return run(model, inputs)
        waited = _now() - began
        try:
            if not self.proven:
                return self._both(model, script, inputs, state, waited)
            return run_from(model, script, inputs, state)
        except DiffersError as error:
            self._at[script] = min(error.at, at - 1)
            return self.output(number, model, inputs)
        except Exception as error:  # noqa: BLE001  a model's own error comes again
            answer = run(model, inputs)
            self._give_up(f"it could not go on from what was known ({type(error).__name__})")
            return answer

    def _start(self, script: Script | None) -> int:
        if script is None:
            return 0
        if script not in self._at:
            self._at[script] = script.start_of(self.touched)
        return self._at[script]

    def _before(self, number: int, script: Script, inputs: Inputs, at: int) -> State | None:
        """Return the state of the whole model, asked for once a minibatch."""
        last, state = self._state
        if last != number or (state is not None and state.at != at):
            try:
                state = self.known.state(number, script, inputs, at)
            except DiffersError as error:
                state = None
                self.note = f"the model goes other ways than when it was recorded ({error})"
            except Exception as error:  # noqa: BLE001  a model's own error comes again
                state = None
                self._give_up(f"what was computed could not be kept ({type(error).__name__})")
            self._state = number, state
        return state

    def _both(
        self, model: nn.Module, script: Script, inputs: Inputs, state: State, waited: float
    ) -> Any:
        began = _now()
        wanted = run(model, inputs)
        between = _now()
        got = run_from(model, script, inputs, state)
        ended = _now()
        self.proven = True
        if not _alike(wanted, got):
            self._give_up("going on from what was known gave other answers")
        elif waited + self.cuts * (ended - between) > self.cuts * (between - began):
            self.given_up = True
        return wanted

    def _give_up(self, why: str) -> None:
        self.given_up, self.note = True, why


def _now() -> float:
    """Return the time, which on a CPU that others use too is that of this process alone."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
        return time.perf_counter()
    return time.process_time()


def _alike(wanted: Any, got: Any) -> bool:
    one, other = _tensors(wanted), _tensors(got)
    return len(one) == len(other) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a.double(), b.double(), _CLOSE, _CLOSE * _size(a), equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )


def _tensors(value: Any) -> list[Tensor]:
    return [t for _, t in tensors_in(value)]


def _size(tensor: Tensor) -> float:
    """Return the largest finite number in a tensor."""
    finite = tensor.detach().double().nan_to_num(0.0, 0.0, 0.0)
    return float(finite.abs().max()) if tensor.numel() else 0.0
