"""Time models against each other on this machine, in turns, and say how it was done."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.errors import TonsorError
from tonsor.graph.inputs import Inputs, as_inputs

WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one run: the median of all rounds, and the quarter points around it."""

    median_ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{self.median_ms:.2f} ms ({self.low_ms:.2f} to {self.high_ms:.2f})"


@dataclass(frozen=True, slots=True)
class Latency:
    """Timings by name, and the conditions they hold under."""

    timings: Mapping[str, Timing]
    rounds: int
    threads: int
    batch: int
    device: str
    dtype: str
    engine: str = "eager"

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    def speedup(self, name: str, over: str) -> float:
        """How many times as fast one model is as another."""
        return self.timings[over].median_ms / self.timings[name].median_ms

    @property
    def conditions(self) -> str:
        """What has to stand beside every number."""
        threads = f"{self.threads} thread" + ("s" if self.threads != 1 else "")
        return (
            f"{self.engine}, {self.device}, {self.dtype}, batch {self.batch}, {threads}, "
            f"medians of {self.rounds} rounds in turns"
        )


@torch.no_grad()
def measure(
    models: Mapping[str, nn.Module], inputs: Any, *, rounds: int = 15, threads: int | None = 1
) -> Latency:
    """Time models on one input, all in each round, so that a busy moment hits all alike.

    One thread is the default: several would wait for each other wherever others use the cores
    too. `threads=None` takes as many as torch is set to. Models run in eval mode and are left
    in the mode they were in.
    """
    if not models or rounds < 1:
        message = "measuring takes at least one model and one round"
        raise TonsorError(message)
    given = as_inputs(inputs)
    names = list(models)
    times: dict[str, list[float]] = {n: [] for n in names}
    modes = {n: [(m, m.training) for m in models[n].modules()] for n in names}
    with _threads(threads) as used:
        try:
            for model in models.values():
                model.eval()
            for turn in range(-WARM_UP, rounds):
                first = turn % len(names)
                for name in names[first:] + names[:first]:
                    seconds = _run(models[name], given)
                    if turn >= 0:
                        times[name].append(1e3 * seconds)
        finally:
            for flags in modes.values():
                for module, training in flags:
                    module.training = training
    x = next((t for _, t in given.tensors()), torch.empty(0))
    return Latency(
        {n: _timing(t) for n, t in times.items()},
        rounds=rounds,
        threads=used,
        batch=x.shape[0] if x.dim() else 1,
        device=str(x.device),
        dtype=str(x.dtype).removeprefix("torch."),
    )


def _run(model: nn.Module, inputs: Inputs) -> float:
    wait = _waiter(inputs)
    start = time.perf_counter()
    inputs.call(model)
    wait()
    return time.perf_counter() - start


def _waiter(inputs: Inputs) -> Any:
    """Return what waits for the device: a GPU is given work, and answers before it is done."""
    device = next((t.device for _, t in inputs.tensors() if isinstance(t, Tensor)), None)
    if device is None or device.type != "cuda":
        return lambda: None
    torch.cuda.synchronize(device)
    return lambda: torch.cuda.synchronize(device)


def _timing(times: list[float]) -> Timing:
    if len(times) == 1:
        return Timing(times[0], times[0], times[0])
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(middle, low, high)


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    try:
        if wanted is not None:
            torch.set_num_threads(wanted)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
