"""What the user wishes of a plan, checked against the model before anything is ranked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from tonsor.anatomy import Anatomy
from tonsor.errors import BudgetError, SelectionError
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget
from tonsor.select.earlier import left_by
from tonsor.select.judged import Bundle
from tonsor.select.names import Named, touching
from tonsor.select.rank import RANKS, Alive, Rank
from tonsor.select.ratios import read_ratios
from tonsor.types import Group


@dataclass(frozen=True, slots=True)
class Wishes:
    """All that is wished, but for the scores; `bundles` are the groups that are free to go.

    `held` are groups that `keep` holds, `alive` what an earlier plan has left of those it cuts.
    """

    budget: Budget | None
    rank: Rank
    ratios: Mapping[str, float]
    round_to: int
    floor: float
    skew: float | None
    bundles: tuple[Bundle, ...]
    held: Mapping[str, str]
    alive: Mapping[str, Alive]


def read_wishes(
    anatomy: Anatomy,
    budget: str | Budget | None,
    *,
    rank: Rank,
    keep: Iterable[Named],
    ratios: Mapping[str, float] | None,
    round_to: int,
    floor: float,
    skew: float | None,
    after: Plan | None,
) -> Wishes:
    """Read the options of `plan`, or refuse them."""
    _check_options(rank, round_to, floor, skew)
    if budget is None and not ratios:
        message = "say how much to keep: budget='macs=50%', or ratios={'layer1.0.conv1': 0.5}"
        raise BudgetError(message)
    bundles, held = _bundles(anatomy, touching(anatomy, keep))
    read_ratios(anatomy, ratios or {}, {g.name for b in bundles for g in b}, held)
    return Wishes(
        budget=None if budget is None else as_budget(budget),
        rank=rank,
        ratios=ratios or {},
        round_to=round_to,
        floor=floor,
        skew=skew,
        bundles=bundles,
        held=held,
        alive=left_by(anatomy, after),
    )


def _check_options(rank: object, round_to: object, floor: object, skew: object) -> None:
    if rank not in RANKS:
        message = f"rank must be one of {', '.join(RANKS)}, got {rank!r}"
        raise SelectionError(message)
    if type(round_to) is not int or round_to < 1:
        message = f"round_to must be a whole number of at least 1, got {round_to!r}"
        raise SelectionError(message)
    if not (_is_number(floor) and (0 < floor < 1 or int(floor) == floor >= 1)):
        message = (
            f"floor must be a number of at least 1, or a fraction between 0 and 1, got {floor!r}"
        )
        raise SelectionError(message)
    if skew is not None and not _is_number(skew):
        message = (
            "skew must be a number, above which the skewness of a group's scores keeps it whole, "
            f"or None; got {skew!r}"
        )
        raise SelectionError(message)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def _bundles(anatomy: Anatomy, kept: set[str]) -> tuple[tuple[Bundle, ...], dict[str, str]]:
    """Collect groups that must keep equal counts; one that is kept keeps its whole tie."""
    found: dict[object, list[Group]] = {}
    for group in anatomy.groups:
        found.setdefault(group.name if group.tie is None else group.tie, []).append(group)
    free: list[Bundle] = []
    held: dict[str, str] = {}
    for bundle in found.values():
        reasons = {g.name: "keep= holds it" for g in bundle if g.name in kept}
        reasons |= {g.name: "it may not be cut" for g in bundle if not g.prunable}
        if not reasons:
            free.append(bundle)
            continue
        first = next(iter(reasons))
        in_step = f"it must shrink with '{first}', and {reasons[first]}"
        held |= {g.name: reasons.get(g.name, in_step) for g in bundle}
    return tuple(free), held
