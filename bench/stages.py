"""Where the engine's CPU time goes: the stages of one prune, read off the real calls."""

from __future__ import annotations

import cProfile
import importlib
import pstats
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from tonsor import api

# Watched are the names that `inspect` and `plan` call by; one that is gone counts as "rest".
WATCHED = {
    "trace": ("tonsor.anatomy", "trace"),
    "solve": ("tonsor.anatomy", "solve"),
    "settle": ("tonsor.anatomy", "settle"),
    "values": ("tonsor.anatomy", "_wrong_in_value"),
    "account": ("tonsor.anatomy", "account"),
    "score": ("tonsor.select.make", "score"),
}
STAGES = (*WATCHED, "rest", "plan", "cut", "proof")


@contextmanager
def _watching(seconds: dict[str, float]) -> Iterator[None]:
    before: list[tuple[Any, str, Any]] = []
    for stage, (module, name) in WATCHED.items():
        home = importlib.import_module(module)
        function = getattr(home, name, None)
        if function is not None:
            before.append((home, name, function))
            setattr(home, name, _timed(function, stage, seconds))
    try:
        yield
    finally:
        for home, name, function in before:
            setattr(home, name, function)


def _timed(function: Callable[..., Any], stage: str, seconds: dict[str, float]) -> Any:
    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            found = function(*args, **kwargs)
        finally:
            seconds[stage] += time.process_time() - start
        if stage == "settle":
            seconds["runs"] = getattr(found, "runs", 0)
        return found

    return timed


def run(
    model: nn.Module, inputs: Any, *, budget: str = "macs=50%", prove: bool = True
) -> dict[str, Any]:
    """Prune once; return CPU seconds of each stage, and the numbers of operators and groups."""
    FakeTensorMode.cache_clear()  # or an earlier run in this process would pay for this one
    seconds: dict[str, float] = defaultdict(float)
    clock = [time.process_time()]

    def lap() -> float:
        clock.append(time.process_time())
        return clock[-1] - clock[-2]

    with _watching(seconds):
        anatomy = api.inspect(model, inputs)
        inspected = lap()
        plan = api.plan(anatomy, budget)
        planned = lap()
        slim = plan.apply(model, verify=False)
        seconds["cut"] = lap()
        if prove:
            plan.prove(model, slim)
            seconds["proof"] = lap()
    seconds["plan"] = planned - seconds["score"]
    inside = ("trace", "solve", "settle", "values", "account")
    seconds["rest"] = inspected - sum(seconds[s] for s in inside)
    return {
        "seconds": {s: seconds[s] for s in STAGES},
        "operators": len(anatomy.graph.ops),
        "ran": anatomy.graph.ran,
        "runs": seconds["runs"],
        "groups": len(anatomy.groups),
        "prunable": len(anatomy.prunable),
    }


def worst(
    model: nn.Module, inputs: Any, order: str, number: int, *, prove: bool
) -> list[tuple[str, int, float, float]]:
    """Return the functions that cost most: where, calls, own seconds, cumulative seconds."""
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    run(model, inputs, prove=prove)
    profile.disable()
    stats: Any = pstats.Stats(profile)
    key = {"own": 2, "cumulative": 3}[order]
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][key])[:number]
    return [(_place(*where), calls, own, both) for where, (_, calls, own, both, _) in rows]


def _place(file: str, line: int, function: str) -> str:
    if file == "~":
        return function
    for root in ("/src/", "/site-packages/", "/python3.11/"):
        file = file.rpartition(root)[2]
    return f"{file}:{line} {function}"
