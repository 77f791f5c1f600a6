"""Time a deployed model against the model as it was given, and keep what is fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from tonsor.cost.rounds import take_turns, warm_up
from tonsor.cost.spread import Ratio, paired
from tonsor.deploy.agree import outputs_agree
from tonsor.deploy.capture import fresh
from tonsor.deploy.deployed import AsItIs, Deployed
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs

GIVEN, LAST, DEPLOYED = "as given", "channels_last", "deployed"
_WARM_UP = 3
_MORE = 5  # so many times as many rounds, where it is not clear which is faster


@dataclass(frozen=True, slots=True)
class Comparison:
    """Milliseconds by model, which of them is returned, and why if that is not the deployed one."""

    models: Mapping[str, Deployed]
    ms: Mapping[str, float]
    ratio: Ratio
    returned: str
    notes: tuple[str, ...]


def compare(
    own: nn.Module, fast: Deployed, given: Inputs, laid: tuple[bool, ...], rounds: int
) -> Comparison:
    """Time all in turns; the deployed one is returned if it is sure to be faster than others."""
    models = {GIVEN: AsItIs(own, laid, last=False)}
    laid_last = AsItIs(_last(own), laid, last=True)
    if any(t.dim() == 4 for _, t in given.tensors()) and _runs_alike(laid_last, own, given):
        models[LAST] = laid_last
    runs: dict[str, Callable[[], Any]] = {
        GIVEN: partial(given.call, own),
        **({LAST: partial(given.call, laid_last)} if LAST in models else {}),
        DEPLOYED: partial(given.call, fast),
    }
    samples = _timed(runs, given, rounds)
    ms = {name: median(times) for name, times in samples.items()}
    best = min(models, key=lambda name: ms[name])
    ratio = paired(samples[DEPLOYED], samples[best])
    everything: dict[str, Deployed] = {**models, DEPLOYED: fast}
    if ratio.high < 1:
        return Comparison(everything, ms, ratio, DEPLOYED, ())
    note = f"the deployed model is not surely faster than the model {best}, so that is returned"
    return Comparison(everything, ms, ratio, best, (note,))


def _timed(
    runs: Mapping[str, Callable[[], Any]], given: Inputs, rounds: int
) -> dict[str, list[float]]:
    device = next((t.device for _, t in given.tensors()), torch.device("cpu"))
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    repeats = warm_up(runs, _WARM_UP, wait)

    def clear(samples: dict[str, list[float]]) -> bool:
        others = [name for name in samples if name != DEPLOYED]
        ratios = [paired(samples[DEPLOYED], samples[name]) for name in others]
        return all(r.high < 1 for r in ratios) or any(r.low > 1 for r in ratios)

    return take_turns(
        runs, repeats, wait, rounds=rounds, at_most=_MORE * rounds, sure=clear,
        advance=lambda: None,
    )  # fmt: skip


def _last(own: nn.Module) -> nn.Module:
    """Return the model with the channels of its weights last."""
    return clone(own, lambda _, tensor: _laid(tensor))


def _laid(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dim() != 4:
        return tensor
    laid = tensor.detach().contiguous(memory_format=torch.channels_last)
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(laid, requires_grad=False) if is_parameter else laid


def _runs_alike(model: nn.Module, own: nn.Module, given: Inputs) -> bool:
    try:
        return outputs_agree(fresh(given).call(model), fresh(given).call(own))
    except Exception:  # noqa: BLE001  views fail where channels lie last
        return False
