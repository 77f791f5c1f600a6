"""Rounds of timed runs, in which everything that is compared takes its turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tonsor.cost.engines.registry import Run

Samples: TypeAlias = dict[str, list[float]]
"""Milliseconds of one run by name, one in each round."""

SAMPLE_MS = 2.0  # what is over sooner is repeated, or the clock would be timed too
LONG_MS = 50.0  # up to this, what is quick is repeated to last as long as the rest
MOST_REPEATS = 1000
MOST_WARM_UP = 30
SETTLED = 0.9


def warm_up(
    runs: Mapping[str, Run], least: int, wait: Run, sample_ms: float = SAMPLE_MS
) -> dict[str, int]:
    """Run all in turns until none gets faster; return how often each is repeated in a sample."""
    best = dict.fromkeys(runs, math.inf)
    restless = set(runs)
    for turn in range(1, max(least, MOST_WARM_UP) + 1):
        for name in _in_turn(list(runs), turn):
            if name in restless:
                seconds = _clock(runs[name], 1, wait)
                if turn >= least and seconds >= SETTLED * best[name]:
                    restless.remove(name)
                best[name] = min(best[name], seconds)
        if not restless:
            break
    return {n: _repeats(1e3 * t, 1e3 * max(best.values()), sample_ms) for n, t in best.items()}


def _repeats(ms: float, longest_ms: float, sample_ms: float) -> int:
    """How often to run something in a sample.

    On a busy machine a long sample is interrupted every time, a short one seldom, so that the
    median of the one has the waiting in it and that of the other hasn't. Samples that last
    alike can be compared.
    """
    alike = round(min(longest_ms, LONG_MS) / ms)
    return min(MOST_REPEATS, max(1, alike, math.ceil(sample_ms / ms)))


def take_turns(
    runs: Mapping[str, Run],
    repeats: Mapping[str, int],
    wait: Run,
    *,
    rounds: int,
    at_most: int,
    sure: Callable[[Samples], bool],
    advance: Callable[[], None],
) -> Samples:
    """Time all once in each round: in `rounds` rounds, and then more until `sure` of it."""
    samples: Samples = {n: [] for n in runs}
    for turn in range(max(rounds, at_most)):
        if turn >= rounds and sure(samples):
            break
        for name in _in_turn(list(runs), turn):
            seconds = _clock(runs[name], repeats[name], wait)
            samples[name].append(1e3 * seconds / repeats[name])
        advance()
    return samples


def _in_turn(names: list[str], turn: int) -> list[str]:
    """Who goes first changes from round to round."""
    first = turn % len(names)
    return names[first:] + names[:first]


def _clock(run: Run, repeats: int, wait: Run) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return time.perf_counter() - start
