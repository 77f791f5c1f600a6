"""All that can be won back without labels, step by step, with what each step won."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.graph.clone import clone
from tonsor.graph.trace import unwrap
from tonsor.plans import Plan
from tonsor.recover.compensate import compensation
from tonsor.recover.distance import distances
from tonsor.recover.recalibrate import calibration
from tonsor.recover.repeat import repeatable
from tonsor.recover.results import Recalibrated, Recovered, Recovery
from tonsor.recover.slim import Slim, check_runs, write_
from tonsor.surgery.slice import copy_parameter

Step = Literal["compensate", "batchnorm"]


def recover(
    model: nn.Module,
    slim: nn.Module,
    plan: Plan,
    anatomy: Anatomy,
    batches: Iterable[Any],
    *,
    how: Sequence[Step] = ("compensate", "batchnorm"),
    held_out: Iterable[Any] | None = None,
    at_most: int | None = 50,
    quiet: bool = False,
) -> Recovery:
    """Win back what a cut lost, in place, from data without labels; say what each step won.

    The steps measure on at most `at_most` of `batches`; answers are compared with the original's
    on all of `held_out`, or else on the same batches, and the report says so. Where targets of
    classes come along, the accuracy is told too. Should anything fail, the slim model is as it was.

    >>> import torch, tonsor
    >>> from tonsor.recover import recover
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> anatomy = tonsor.inspect(net, torch.randn(2, 8))
    >>> plan = tonsor.plan(anatomy, "params=50%")
    >>> slim = plan.apply(net)
    >>> data = [(torch.randn(64, 8), None) for _ in range(4)]
    >>> won = recover(net, slim, plan, anatomy, data[:3], held_out=data[3:], quiet=True)
    >>> won.stages["compensate"].error < won.stages["cut"].error
    True
    """
    steps = _checked(how)
    original, small = unwrap(model), unwrap(slim)
    plan.check(original)
    if plan.fibres and "compensate" in steps:
        message = "compensation knows neither stripes nor columns; recover with how=('batchnorm',)"
        raise SelectionError(message)
    Slim(plan, original, small)
    check_runs(original, small)
    compensated: Recovered | None = None
    recalibrated: Recalibrated | None = None
    values: dict[str, Tensor] = {}
    stages: dict[str, nn.Module] = {"cut": small}
    with torch.random.fork_rng([]):
        data = repeatable(batches, at_most)
        now = small
        for step in steps:
            if step == "compensate":
                compensated, found = compensation(
                    original, now, plan, anatomy, data, at_most=at_most, quiet=quiet
                )
            else:
                recalibrated, found = calibration(now, data, at_most=at_most, quiet=quiet)
            values |= found
            now = clone(now, copy_parameter)
            write_(now, found)
            stages[step] = now
        judged, limit = (data, at_most) if held_out is None else (held_out, None)
        accuracy, measured = distances(
            original, list(stages.values()), judged, at_most=limit, quiet=quiet
        )
    write_(small, values)
    apart = dict(zip(stages, measured, strict=True))
    return Recovery(apart, accuracy, compensated, recalibrated, held_out is not None)


def _checked(how: Sequence[Step]) -> tuple[Step, ...]:
    steps: tuple[Any, ...] = (how,) if isinstance(how, str) else tuple(how)
    for step in steps:
        if step not in get_args(Step):
            message = f"'{step}' is no step of a recovery; known: {', '.join(get_args(Step))}"
            raise SelectionError(message)
    if len(set(steps)) < len(steps):
        message = f"how={steps!r} names a step twice; each is done once"
        raise SelectionError(message)
    if steps == ("batchnorm", "compensate"):
        message = (
            "new statistics hold already what compensation would add, and it would count twice; "
            "compensate first: how=('compensate', 'batchnorm')"
        )
        raise SelectionError(message)
    return steps
