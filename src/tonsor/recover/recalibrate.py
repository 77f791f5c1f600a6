"""Take the statistics of BatchNorms anew, and say what that won."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from tonsor.criteria.stream import shown, taken_apart, where_is
from tonsor.errors import DataError
from tonsor.graph.clone import clone
from tonsor.graph.inputs import Inputs
from tonsor.graph.trace import unwrap
from tonsor.recover.distance import distances
from tonsor.recover.repeat import repeatable
from tonsor.recover.results import Recalibrated
from tonsor.recover.slim import check_runs, write_
from tonsor.surgery.slice import copy_parameter
from tonsor.train.calibrate import calibrate
from tonsor.train.data import Batches

_NORMS = (nn.modules.batchnorm._BatchNorm,)


def recalibrate(
    model: nn.Module | None,
    slim: nn.Module,
    batches: Iterable[Any],
    *,
    held_out: Iterable[Any] | None = None,
    at_most: int | None = 50,
    quiet: bool = False,
) -> Recalibrated:
    """Replace the running statistics of a slim model's BatchNorms, in place, by those of data.

    `batches` are at most `at_most` of `(inputs, target)`; the targets are not looked at. Where the
    original `model` is given, the answers before and after are compared with its own, on
    `held_out` or else on the same batches.
    """
    with torch.random.fork_rng([]):
        data = repeatable(batches, at_most)
        found, values = calibration(slim, data, at_most=at_most, quiet=quiet)
        if model is not None:
            after = clone(unwrap(slim), copy_parameter)
            write_(after, values)
            judged, limit = (data, at_most) if held_out is None else (held_out, None)
            _, (before, now) = distances(
                unwrap(model), [unwrap(slim), after], judged, at_most=limit, quiet=quiet
            )
            found = Recalibrated(
                found.norms, found.batches, found.moved, before, now, held_out is not None
            )
    write_(slim, values)
    return found


def calibration(
    slim: nn.Module, batches: Iterable[Any], *, at_most: int | None, quiet: bool
) -> tuple[Recalibrated, dict[str, Tensor]]:
    """Return how far the statistics move, and their new values."""
    check_runs(slim)
    copy = clone(unwrap(slim), copy_parameter)
    before = _statistics(copy)
    if not before:
        return Recalibrated(0, 0, 0.0), {}
    source = cast("Batches", _Source(batches, at_most, where_is(copy), quiet))
    seen = calibrate(_Called(copy), source, count=sys.maxsize)
    if not seen:
        message = "batches is empty, so there are no statistics to take; give one at least"
        raise DataError(message)
    after = _statistics(copy)
    return Recalibrated(len(before) // 2, seen, _moved(before, after)), after


class _Called(nn.Module):
    """A model that takes its inputs as one object."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Inputs) -> Any:
        return inputs.call(self.model)


class _Source:
    """Batches of any kind as the calibration takes them."""

    def __init__(
        self, batches: Iterable[Any], at_most: int | None, device: torch.device | None, quiet: bool
    ) -> None:
        self._batches, self._at_most, self._device, self._quiet = batches, at_most, device, quiet

    def __len__(self) -> int:
        return 1  # how many there are is known when they were gone through

    def epoch(self, number: int) -> Iterator[tuple[Inputs, Any]]:
        """The inputs of each minibatch, where the model is."""
        for batch in shown(self._batches, self._at_most, "taking statistics anew", self._quiet):
            yield taken_apart(batch, self._device)


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the means and variances of BatchNorms, by name."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, _NORMS) and module.running_mean is not None:
            for name in ("running_mean", "running_var"):
                full = f"{path}.{name}" if path else name
                found[full] = getattr(module, name).detach().clone()
    return found


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> float:
    """The root mean square of how far means have moved, in standard deviations."""
    moves = [
        (after[n] - mean).double() ** 2
        / before[n[: -len("mean")] + "var"].double().clamp_min(1e-12)
        for n, mean in before.items()
        if n.endswith("running_mean")
    ]
    return float(torch.cat([m.flatten().cpu() for m in moves]).mean().sqrt())
