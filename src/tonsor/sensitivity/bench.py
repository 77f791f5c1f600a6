"""Measuring the cuts of one group after the other, without computing twice what is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tonsor.criteria.stream import taken_apart, untouched, where_is
from tonsor.errors import TrainError
from tonsor.graph.inputs import Inputs
from tonsor.sensitivity.cuts import Bundle
from tonsor.sensitivity.judge import Judge, Tally
from tonsor.sensitivity.replay import State, run, run_until
from tonsor.sensitivity.reuse import Reuse
from tonsor.sensitivity.scribe import write_script
from tonsor.sensitivity.script import Script
from tonsor.sensitivity.thin import WHOLE, thinned
from tonsor.train.evaluate import Evaluation

_FORMS = 8  # how many shapes of a minibatch are worth a script
Tick = Callable[[], None]


def one_pass(batches: Any) -> Iterable[Any]:
    """Go once through a loader, or through the first epoch of batches that have several."""
    epoch = getattr(batches, "epoch", None)
    return epoch(0) if epoch is not None else batches


class Bench:
    """A model and its data, on which cuts are measured.

    What comes before the first operator that a cut touches is computed once for all cuts of a
    group, and kept for the next group further down as long as it fits into `memory` bytes.
    """

    def __init__(self, model: nn.Module, batches: Any, judge: Judge, memory: int) -> None:
        self.model = model
        self.batches = batches
        self.judge = judge
        self.free = memory
        self.whole = thinned(model, WHOLE)
        self.scripts: dict[Any, Script | None] = {}
        self.states: dict[int, State] = {}

    def base(self) -> Evaluation:
        """Judge the whole model."""
        tally = Tally(self.judge)
        with self._calm():
            for inputs, target in self._minibatches():
                tally.see(run(self.whole, inputs), target)
        if not tally.total:
            message = "batches is empty, so nothing can be judged; give at least one minibatch"
            raise TrainError(message)
        return tally.evaluation

    def measure(self, bundle: Bundle, tick: Tick) -> tuple[list[Evaluation], str]:
        """Judge each cut of a group; with a note where something could not be reused."""
        tallies = [Tally(self.judge) for _ in bundle.trials]
        thin = [thinned(self.model, trial.cut) for trial in bundle.trials]
        touched = {name for trial in bundle.trials for name in trial.cut.keep}
        reuse = Reuse(self, touched, len(thin))
        with self._calm():
            for number, (inputs, target) in enumerate(self._minibatches()):
                for model, tally in zip(thin, tallies, strict=True):
                    tally.see(reuse.output(number, model, inputs), target)
                tick()
        return [tally.evaluation for tally in tallies], reuse.note

    def script(self, inputs: Inputs) -> Script | None:
        """Return the script for inputs of this form, written when it is first met."""
        form = tuple((t.shape, t.stride(), t.dtype) for _, t in inputs.tensors())
        if form not in self.scripts and len(self.scripts) < _FORMS:
            self.scripts[form] = write_script(self.model, inputs)
        return self.scripts.get(form)

    def state(self, number: int, script: Script, inputs: Inputs, at: int) -> State:
        """Return the state of the whole model at an operator, from the one before it if kept."""
        before = self.states.get(number)
        if before is not None and (before.at > at or not before.began_with(inputs)):
            before = None
        if before is not None and before.at == at:
            return before
        found = run_until(self.whole, script, inputs, at, before)
        old = self.states.pop(number, None)
        self.free += 0 if old is None else old.bytes
        if found.bytes <= self.free:
            self.states[number] = found
            self.free -= found.bytes
        return found

    def _minibatches(self) -> Iterator[tuple[Inputs, Any]]:
        device = where_is(self.model)
        for batch in one_pass(self.batches):
            yield taken_apart(batch, device)

    @contextmanager
    def _calm(self) -> Iterator[None]:
        devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
        with (
            torch.random.fork_rng(devices),
            torch.no_grad(),
            untouched(self.whole, gradients=False),
        ):
            yield
