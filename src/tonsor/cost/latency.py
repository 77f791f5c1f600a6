"""Time models against each other on this machine, in turns, and say how it was done."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tonsor.cost.engines.ready import Ready, prepare
from tonsor.cost.engines.registry import Model, find_engine, using_threads
from tonsor.cost.heap import heap_kept
from tonsor.cost.progress import bar
from tonsor.cost.rounds import SAMPLE_MS, Samples, take_turns, warm_up
from tonsor.cost.spread import Ratio, interval_of_median, paired
from tonsor.errors import TonsorError

MOST_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one run: the median of all rounds, and the quarter points around it."""

    median_ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{_ms(self.median_ms)} ms ({_ms(self.low_ms)} to {_ms(self.high_ms)})"


@dataclass(frozen=True, slots=True)
class Latency:
    """Timings by name, and the conditions they hold under.

    `samples` are the milliseconds of every round, in the order of the rounds.
    """

    timings: Mapping[str, Timing]
    rounds: int
    threads: int
    batch: int
    device: str
    dtype: str
    engine: str = "eager"
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict, repr=False)

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    def speedup(self, name: str, over: str) -> float:
        """How many times as fast one model is as another."""
        return self.timings[over].median_ms / self.timings[name].median_ms

    def ratio(self, name: str, over: str) -> Ratio:
        """How many times as long one model takes as another: the median over the rounds.

        The interval holds the true one with 95 %. Whatever slows a whole round slows both, so
        this is known better than either time.
        """
        return paired(self.samples[name], self.samples[over])

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
    models: Mapping[str, Model],
    inputs: Any = None,
    *,
    rounds: int = 15,
    threads: int | None = 1,
    engine: str = "eager",
    device: Any = None,
    within: float | None = None,
    at_most: int = MOST_ROUNDS,
    sample_ms: float = SAMPLE_MS,
    about: str = "",
) -> Latency:
    """Time models on one input, all in each round, so that a busy moment hits all alike.

    One thread is the default: several would wait for each other wherever others use the cores
    too. `threads=None` takes as many as torch is set to. Models run in eval mode and are left
    as they were. `device` takes copies of all of them there at once, so they must fit together.

    Memory that a run frees is kept for the next, as it is in a process that has run for a while
    under an allocator made for it; runs shorter than `sample_ms` are repeated within a sample.

    With `within=0.02` there are more rounds, up to `at_most`, until every model's ratio to the
    first (or the time of an only one) is known to 2 %. Models that `prepare` made ready run as
    that was done, each on its own inputs. Text in `about` shows a bar.
    """
    if not models or rounds < 1:
        message = "measuring takes at least one model and one round"
        raise TonsorError(message)
    ready = {
        n: m if isinstance(m, Ready) else prepare(engine, m, inputs, threads, device)
        for n, m in models.items()
    }
    first, runs = _alike(ready), {n: r.run for n, r in ready.items()}
    x = next((t for _, t in first.inputs.tensors()), torch.empty(0))
    wait = _waiter(x.device)
    with (
        using_threads(first.threads),
        heap_kept(),
        bar(about, max(rounds, at_most if within else 0), quiet=not about) as advance,
    ):
        repeats = warm_up(runs, find_engine(first.engine).warm_up, wait, sample_ms)
        samples = take_turns(
            runs, repeats, wait, rounds=rounds, at_most=at_most if within else rounds,
            sure=lambda found: _widest(found) <= (within or 1), advance=lambda: advance(""),
        )  # fmt: skip
    return Latency(
        {n: timing(t) for n, t in samples.items()},
        rounds=len(next(iter(samples.values()))),
        threads=first.threads,
        batch=x.shape[0] if x.dim() else 1,
        device=str(x.device),
        dtype=first.dtype,
        engine=first.engine,
        samples={n: tuple(t) for n, t in samples.items()},
    )


def timing(samples: Sequence[float]) -> Timing:
    """Sum up the milliseconds of all rounds."""
    if len(samples) == 1:
        return Timing(samples[0], samples[0], samples[0])
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(middle, low, high)


def _alike(runs: Mapping[str, Ready]) -> Ready:
    """Return the first of what runs under the same conditions, or say that they differ."""
    first = next(iter(runs.values()))
    for name, run in runs.items():
        if (run.engine, run.threads) != (first.engine, first.threads):
            message = (
                f"'{name}' is ready for {run.engine} with {run.threads} threads, others for "
                f"{first.engine} with {first.threads}; what is compared runs in the same way"
            )
            raise TonsorError(message)
    return first


def _widest(samples: Samples) -> float:
    first, *others = samples.values()
    if others:
        return max(paired(s, first).within for s in others)
    return Ratio(statistics.median(first), *interval_of_median(first)).within


def _waiter(device: torch.device) -> Callable[[], None]:
    """Return what waits for the device: a GPU is given work, and answers before it is done."""
    if device.type != "cuda":
        return lambda: None
    return lambda: torch.cuda.synchronize(device)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.3g}"
