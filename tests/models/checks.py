"""What must hold for every model there is: the check behind the matrix and the coverage bench.

Nothing here knows how tonsor works. A model goes in, a slim one comes out, and every promise
about the two is looked at from outside. What does not hold is listed in words, not raised, so
that a table over all models can be printed too.
"""

import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tonsor
from tonsor.errors import BudgetError, TonsorError

from .case import Case, output_tensors

HALF = 0.5
WITHIN = 0.005
PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass
class Outcome:
    """What came of one case. `problems` says what does not hold, `why` what could not be cut."""

    name: str
    family: str
    operators: int = 0
    free: int = 0
    pinned: int = 0
    kept_macs: float = 1.0
    kept_params: float = 1.0
    met: bool | None = None
    proof_error: float | None = None
    refused: str = ""
    why: str = ""
    trains: str = ""
    round_trip: str = ""
    exports: str = ""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def cut(self) -> bool:
        """Whether anything was taken away."""
        return self.proof_error is not None

    @contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """List whatever goes wrong inside, instead of raising it."""
        try:
            yield
        except AssertionError as error:
            self.problems.append(f"{what}: {error}")
        except Exception as error:  # noqa: BLE001  the table goes on, the test shows all of it
            lines = traceback.format_exception(error, limit=-6)
            self.problems.append(f"{what} raised\n{''.join(lines)}")


def check(case: Case, *, export: bool) -> Outcome:
    """Prune a case to half of its MACs, or as far as it goes, and look at every promise."""
    started = time.perf_counter()
    outcome = Outcome(case.name, case.family)
    model, args, kwargs = case.build()
    inputs = tonsor.Inputs(*args, **kwargs)
    before = snapshot(model, inputs)
    with outcome.watching("pruning"):
        found = _prune(outcome, model, inputs)
    outcome.problems += [f"the original changed: {item}" for item in before.changes(model, inputs)]
    if outcome.cut:
        with outcome.watching("the slim model"):
            anatomy, plan, slim = found  # pyright: ignore[reportPossiblyUnbound]
            _same_kind(model, slim)
            _as_predicted(anatomy, plan, slim, inputs)
        with outcome.watching("the round trip"):
            outcome.round_trip = round_trip(plan, model, slim, inputs)  # pyright: ignore[reportPossiblyUnbound]
        with outcome.watching("a training step"):
            outcome.trains = trains(slim, model, inputs)  # pyright: ignore[reportPossiblyUnbound]
        if export:
            with outcome.watching("export"):
                fresh = plan.apply(model, verify=False)  # pyright: ignore[reportPossiblyUnbound]
                outcome.exports = exports(fresh, model, inputs)
    outcome.seconds = time.perf_counter() - started
    return outcome
