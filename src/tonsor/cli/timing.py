"""Measured latency on the command line: how it is measured, and how it is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from tonsor.cli.choose_options import Source, Timed
from tonsor.cli.outcome import Outcome
from tonsor.cli.show import step
from tonsor.cost.bench import Bench
from tonsor.cost.engines.registry import find_engine, using_threads
from tonsor.errors import EngineError
from tonsor.graph.inputs import Inputs
from tonsor.plans import Plan

_BEFORE, _AFTER = "before", "after"
_WITHIN, _AT_MOST = 0.05, 40  # no budget hangs on what is only told, so it may not take long


@dataclass(frozen=True, slots=True)
class Measured:
    """How long a model takes before and after a cut; the ratio with what holds it with 95 %."""

    before_ms: float
    after_ms: float
    ratio: float
    interval: tuple[float, float]
    conditions: str

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"latency: {self.before_ms:.3g} ms before, {self.after_ms:.3g} ms after, measured in "
            f"turns: {self.ratio:.1%} of it ({low:.1%} to {high:.1%})\n"
            f"         {self.conditions}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def bench_of(
    timed: Timed, device: str | None, source: Source, within: float | None = None
) -> Bench:
    """Make the conditions of measuring, and refuse an engine that can't be used here."""
    missing = find_engine(timed.engine).missing()
    if missing:
        message = f"--engine {timed.engine} can't be used here: {missing}"
        raise EngineError(message)
    batch = timed.batch if timed.batch is not None else None if source.input else 1
    return Bench(timed.engine, timed.threads, device, batch, within=within)


def measured_by(plan: Plan) -> Measured | None:
    """Take from a plan what was measured on the way to it."""
    made = plan.made_by
    if "conditions" not in made:  # a ratio alone may be the part that a training took
        return None
    low, high = made["interval"]
    return Measured(made["whole"], made["reached"], made["ratio"], (low, high), made["conditions"])


def run_fastest(bench: Bench, done: Outcome, *, quiet: bool) -> Outcome:
    """Measure how each layer of stripes or columns runs fastest, and have it run like that.

    That is measured in torch, whatever engine the rest is measured in.
    """
    plan, slim = done.report.plan, done.slim
    if not plan.fibres:
        return done
    from tonsor.select.fibres.execution import fastest

    here, there = next(slim.parameters()).device, torch.device(bench.device or "cpu")
    inputs = bench.inputs(done.made.inputs).map(lambda tensor: tensor.to(there))
    with using_threads(bench.threads):
        slim.to(there)
        try:
            plan, timings = fastest(slim, plan, inputs, quiet=quiet)
        finally:
            slim.to(here)
    return replace(done, report=replace(done.report, plan=plan), timings=timings)


def measure_cut(
    bench: Bench, model: nn.Module, slim: nn.Module, inputs: Inputs
) -> tuple[Measured | None, str]:
    """Time a model against what was cut from it; where that fails, say why."""
    try:
        with step(f"measuring latency ({bench.engine})"):
            bench = replace(bench, within=_WITHIN, at_most=_AT_MOST)
            found = bench.measure({_BEFORE: model, _AFTER: slim}, bench.inputs(inputs))
    except EngineError as error:  # what was cut is worth keeping all the same
        return None, f"latency was not measured: {error}"
    ratio = found.ratio(_AFTER, _BEFORE)
    return Measured(
        found[_BEFORE].median_ms, found[_AFTER].median_ms, ratio.median,
        (ratio.low, ratio.high), found.conditions,
    ), ""  # fmt: skip
