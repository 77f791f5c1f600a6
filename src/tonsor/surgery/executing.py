"""Time both ways in which layers of stripes or columns can run, and take the faster one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.cost.heap import heap_kept
from tonsor.cost.latency import timing
from tonsor.cost.progress import bar
from tonsor.cost.rounds import Samples, take_turns, warm_up
from tonsor.cost.spread import Ratio, paired
from tonsor.errors import SurgeryError
from tonsor.fibres import Execution, Kind
from tonsor.graph.inputs import Inputs, as_inputs
from tonsor.surgery.fibre_conv import FibreConv

_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one layer in both ways, medians, and the way that was taken.

    `ratio` says how many times as long its fibres take as the dense weight; `kind` what they are.
    """

    name: str
    dense_ms: float
    fibres_ms: float
    ratio: Ratio
    run: Execution
    kind: Kind

    def __str__(self) -> str:
        return (
            f"{self.name}: dense {self.dense_ms:.3g} ms, {self.kind} {self.fibres_ms:.3g} ms, "
            f"{self.ratio}; {self.run}"
        )


def time_layers(
    slim: nn.Module, inputs: Any, *, rounds: int = 9, margin: float = 0.03, quiet: bool = True
) -> tuple[Timing, ...]:
    """Time every layer of stripes or columns on what it gets in the model, and set how it runs.

    Fibres are taken if they need less than `1 - margin` of the time that the dense weight needs.
    Layers with groups are dense and not timed; layers that these inputs don't reach stay as they
    are. The numbers hold for this machine, this batch and the threads that torch is set to.

    >>> import numpy as np
    >>> from tonsor.surgery.stripe_conv import StripeConv2d
    >>> layer = StripeConv2d(64, 64, np.eye(64, 9, dtype=bool), (3, 3))
    >>> (timing,) = time_layers(nn.Sequential(layer), torch.randn(1, 64, 8, 8), rounds=1)
    >>> timing.name, timing.run == layer.run
    ('0', True)
    """
    if rounds < 1 or not 0 <= margin < 1:
        message = (
            f"timing takes at least one round and a margin from 0 to below 1, got rounds={rounds} "
            f"and margin={margin}"
        )
        raise SurgeryError(message)
    layers = {n: m for n, m in slim.named_modules() if isinstance(m, FibreConv)}
    found: list[Timing] = []
    with torch.no_grad(), in_eval(slim):
        given = _given(slim, layers, as_inputs(inputs))
        with heap_kept(), bar("timing layers", len(given), quiet=quiet) as advance:
            for name, x in given.items():
                found.append(_timed(name, layers[name], x, rounds, margin))
                advance(f"timed {name}")
    return tuple(found)


def _given(slim: nn.Module, layers: dict[str, FibreConv], inputs: Inputs) -> dict[str, Tensor]:
    """Run the model once; return what each layer gets first."""
    found: dict[str, Tensor] = {}

    def take(name: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
        found.setdefault(name, args[0] if args else kwargs["x"])

    hooks = []
    try:
        for name, layer in layers.items():
            if layer.groups > 1:
                layer.run = "dense"
                continue
            hook: Any = partial(take, name)
            hooks.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
        inputs.call(slim)
    finally:
        for handle in hooks:
            handle.remove()
    return found


def _timed(name: str, layer: FibreConv, x: Tensor, rounds: int, margin: float) -> Timing:
    before = layer.run
    try:
        samples = _samples(layer, x, rounds)
    except BaseException:
        layer.run = before
        raise
    ratio = paired(samples[layer.kind], samples["dense"])
    layer.run = layer.kind if ratio.median < 1 - margin else "dense"
    dense, fibres = (timing(samples[way]).median_ms for way in ("dense", layer.kind))
    return Timing(name, dense, fibres, ratio, layer.run, layer.kind)


def _samples(layer: FibreConv, x: Tensor, rounds: int) -> Samples:
    """Time a layer in both ways, in turns."""

    def run(way: Execution) -> None:
        layer.run = way
        layer.forward(x)

    runs: dict[str, Callable[[], None]] = {
        "dense": partial(run, "dense"),
        layer.kind: partial(run, layer.kind),
    }
    wait = partial(torch.cuda.synchronize, x.device) if x.is_cuda else lambda: None
    repeats = warm_up(runs, _WARM_UP, wait)
    return take_turns(
        runs, repeats, wait, rounds=rounds, at_most=rounds, sure=lambda _: True,
        advance=lambda: None,
    )  # fmt: skip


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Have all of a model in eval mode, and afterwards each part in the mode it was in."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
