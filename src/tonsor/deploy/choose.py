"""Time the ways of each layer on what it really gets, and take the fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.cost.progress import bar
from tonsor.cost.rounds import take_turns, warm_up
from tonsor.cost.spread import paired
from tonsor.deploy.agree import agree, apart
from tonsor.deploy.fuse import fused_parts
from tonsor.deploy.layers import Site, described, kept_share
from tonsor.deploy.report import Row
from tonsor.deploy.ways import WAYS
from tonsor.errors import DeployError
from tonsor.graph.inputs import Inputs

_WARM_UP = 2
_SAMPLE_MS = 1.0
_HOPELESS = 2.5  # what takes so many times as long at first is not timed any further
_FAMILIAR = "dense"


@dataclass(frozen=True, slots=True)
class Trial:
    """How layers are timed: which ways, for how many rounds, and by how much one must be faster."""

    rounds: int
    margin: float
    ways: tuple[str, ...]


@torch.no_grad()
def choose(body: nn.Module, sites: Sequence[Site], inputs: Inputs, trial: Trial, *,
           quiet: bool) -> tuple[Row, ...]:  # fmt: skip
    """Run a model once; on the way, have each site take the fastest way for what it is given."""
    rows = {id(site): row_of(site) for site in sites}
    with bar("timing layers", len(sites), quiet=quiet) as advance, ExitStack() as hooks:

        def stop(site: Site, given: tuple[Any, ...]) -> None:
            if rows[id(site)].chosen:
                return  # it runs a second time
            rows[id(site)] = decide(site, given[0], *given[1:], trial=trial)
            advance(f"timed {site.name}")

        for site in sites:
            handle = site.register_forward_pre_hook(stop)  # type: ignore[arg-type]
            hooks.callback(handle.remove)
        inputs.call(body)
    return tuple(rows[id(site)] for site in sites)


def row_of(site: Site) -> Row:
    """Say what a layer is, before it is timed."""
    conv = site.reference.conv
    return Row(site.name, described(conv), kept_share(conv), fused_parts(site))


def decide(
    site: Site, x: Tensor, residual: Tensor | None = None, *, trial: Trial
) -> Row:  # fmt: skip
    """Give a site the fastest of the ways that compute the same, and say how fast they are."""
    wanted = site.reference(x, residual)
    ways, left_out = _right_ways(site, x, residual, wanted, trial.ways)
    if not ways:
        ways, more = _right_ways(site, x, residual, wanted, (_FAMILIAR,))
        left_out |= more
    row = replace(row_of(site), output=tuple(wanted.shape), left_out=left_out)
    if not ways:
        site.way, site.chosen = site.reference, "reference"
        return replace(row, chosen=site.chosen)
    ms = {} if len(ways) == 1 else _timed(ways, x, residual, trial.rounds)
    site.chosen = fastest(ms, trial.margin) if ms else next(iter(ways))
    site.way = ways[site.chosen]
    medians = {way: median(samples) for way, samples in ms.items()}
    return replace(row, ms=medians, chosen=site.chosen)


def fastest(samples: Mapping[str, Sequence[float]], margin: float) -> str:
    """Return the way with the least median; the dense one, unless another is faster by a margin.

    >>> fastest({"dense": [1.0, 1.0], "kernel": [0.98, 0.98]}, margin=0.03)
    'dense'
    """
    best = min(samples, key=lambda way: median(samples[way]))
    if best == _FAMILIAR or _FAMILIAR not in samples:
        return best
    dense = samples[_FAMILIAR]
    if len(dense) != len(samples[best]):  # one of them was given up early
        return best
    return best if paired(samples[best], dense).median < 1 - margin else _FAMILIAR


def _right_ways(
    site: Site, x: Tensor, residual: Tensor | None, wanted: Tensor, names: Sequence[str]
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Make the ways that there are, and leave out those that fail or compute something else."""
    ways: dict[str, nn.Module] = {}
    left_out: dict[str, str] = {}
    for family in names:
        try:
            made = WAYS[family](site.reference, x)
        except DeployError as error:  # says itself why it is not worth a try
            left_out[family] = str(error)
            continue
        except Exception as error:  # noqa: BLE001  whatever it is, there are others
            left_out[family] = _failed(error)
            continue
        for name, way in made.items():
            try:
                got = way.eval()(x, residual)
            except Exception as error:  # noqa: BLE001  the same
                left_out[name] = _failed(error)
                continue
            if agree(got, wanted):
                ways[name] = way
            else:
                left_out[name] = f"its result is off by {apart(got, wanted):.1e} of the largest"
    return ways, left_out


def _failed(error: Exception) -> str:
    return f"it fails ({type(error).__name__}: {str(error)[:80]})"


def _timed(
    ways: Mapping[str, nn.Module], x: Tensor, residual: Tensor | None, rounds: int
) -> dict[str, list[float]]:
    """Time ways in turns; those that are hopeless only as far as that is seen."""
    wait = partial(torch.cuda.synchronize, x.device) if x.is_cuda else lambda: None
    runs: dict[str, Callable[[], Any]] = {
        name: partial(way, x, residual) for name, way in ways.items()
    }
    turns = partial(take_turns, wait=wait, sure=lambda _: True, advance=lambda: None)
    first = turns(runs, dict.fromkeys(runs, 1), rounds=3, at_most=3)
    best = min(min(samples) for samples in first.values())
    hopeful = {n: run for n, run in runs.items() if min(first[n]) <= _HOPELESS * best}
    repeats = warm_up(hopeful, _WARM_UP, wait, _SAMPLE_MS)
    samples = turns(hopeful, repeats, rounds=rounds, at_most=rounds)
    return {name: samples.get(name) or [min(first[name])] for name in runs}
