"""Put the mean of what was removed where it was read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.graph.clone import named_tensors
from tonsor.graph.trace import unwrap
from tonsor.plans import Plan
from tonsor.recover.missing import missing
from tonsor.recover.readers import Reader, readers, running_means
from tonsor.recover.results import Recovered
from tonsor.recover.slim import Slim, check_runs, write_
from tonsor.surgery.slice import cut_tensor

_CHANGED = "'{}' of the slim model is not as the cut left it, so what it misses is not known"


def compensate(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    anatomy: Anatomy,
    batches: Iterable[Any],
    *,
    at_most: int | None = 50,
    quiet: bool = False,
) -> Recovered:
    """Give every layer of a slim model, in place, the mean of what its removed inputs added.

    `batches` are at most `at_most` of `(inputs, target)`; the targets are not looked at. The mean
    goes into the bias, or off the running mean of a BatchNorm that alone reads the layer. Then
    each layer makes on average what it made in `model`, as long as its other inputs are what they
    were: means are those of the original, so behind several cuts they are an approximation, which
    can also lose; `recover` tells. Where zeros pad a picture, the mean is over all positions, the
    border included. What is summed up without a weight, as in attention scores or a mean over
    channels, is not made up for.

    To be used right after the cut: layers that were trained since, or helped before, are left.
    """
    with torch.random.fork_rng([]):
        recovered, values = compensation(
            model, slim, plan, anatomy, batches, at_most=at_most, quiet=quiet
        )
    write_(slim, values)
    return recovered


def compensation(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    anatomy: Anatomy,
    batches: Iterable[Any],
    *,
    at_most: int | None,
    quiet: bool,
) -> tuple[Recovered, dict[str, Tensor]]:
    """Return what can be made up for, and the new values of the slim model's tensors."""
    model = unwrap(model)
    plan.check(model)
    plan.check(anatomy.model)
    small = Slim(plan, model, slim)
    check_runs(model, slim)
    found = readers(anatomy, plan)
    left = dict(found.left)
    due: list[Reader] = []
    stale = [n for n in running_means(anatomy) if not small.as_cut(n)]  # may hold it already
    for reader in found.found:
        mine = (reader.weight, reader.into, *stale)
        changed = next((n for n in mine if not small.as_cut(n)), None)
        if changed is None:
            due.append(reader)
        else:
            left[reader.weight] = _CHANGED.format(changed)
    if not due:
        return Recovered({}, left, 0), {}
    means, samples = missing(model, due, batches, at_most=at_most, quiet=quiet)
    tensors, keep = dict(named_tensors(unwrap(slim))), plan.cut().keep
    values: dict[str, Tensor] = {}
    for reader in due:
        if reader not in means:
            left[reader.weight] = "the model did not come by it on this data"
            continue
        mean = cut_tensor(means[reader], keep.get(reader.into, (None,)))
        old = tensors[reader.into].detach()
        values[reader.into] = old.double() + reader.sign * mean.to(old.device)
    changed = {r.into: r.weight for r in due if r in means}
    return Recovered(changed, left, samples), values
