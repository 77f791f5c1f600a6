"""How long to train, so that a schedule gets through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.methods.course import course_of
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.select.schedule import Schedule, parse_schedule


def rounds_needed(
    anatomy: Anatomy,
    schedule: str | Schedule,
    budget: str | Budget | None,
    *,
    keep: Iterable[Named] = (),
    skew: float | None = None,
    **options: Any,
) -> int:
    """Estimate how many rounds a schedule needs to meet a budget; options are those of `plan`.

    Where rounds are counted in pieces, it depends on which of them go. This takes those with the
    smallest weights, or any where the model has no values; other criteria may need a few more.
    """
    found = parse_schedule(schedule)
    course = course_of(anatomy, budget, found, keep, skew, **options)
    empty = any(p.is_meta for p in anatomy.parameters.values())
    decided = course.plan(score(anatomy, "random" if empty else "l2"))
    return found.rounds_for(course.pieces, course.left(decided))


def steps_needed(
    anatomy: Anatomy,
    schedule: str | Schedule,
    budget: str | Budget | None,
    *,
    keep: Iterable[Named] = (),
    **options: Any,
) -> int:
    """Estimate how many minibatches a schedule takes until its last round; see `rounds_needed`.

    >>> import torch
    >>> from tonsor.anatomy import inspect
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    >>> steps_needed(inspect(net, torch.randn(2, 8)), "iterative:3/10", "params=50%")
    60
    """
    found = parse_schedule(schedule)
    rounds = rounds_needed(anatomy, found, budget, keep=keep, **options)
    return rounds * max(1, found.every)
