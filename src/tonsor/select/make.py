"""Make a plan: scores, a budget and the user's wishes become what goes and what stays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Combine, Scores, score
from tonsor.errors import BudgetError, SelectionError
from tonsor.plans import Plan, fingerprint
from tonsor.select.budget import Budget, as_budget
from tonsor.select.choose import Choice, choose
from tonsor.select.names import Named, led_by, touching
from tonsor.select.rank import Lane, Rank, counts_after, make_lane
from tonsor.surgery.ties import Tie
from tonsor.types import Axis, Group, leaves

_RANKS = ("global", "per_group", "normalised")


def plan(
    anatomy: Anatomy,
    budget: str | Budget | None = None,
    *,
    by: str | Scores = "l2",
    rank: Rank = "global",
    keep: Iterable[Named] = (),
    ratios: Mapping[str, float] | None = None,
    round_to: int = 1,
    floor: int | float = 0.1,
    combine: Combine = "mean",
    seed: int = 0,
) -> Plan:
    """Decide what goes, so that the cost of what stays meets the budget.

    `budget` is what is *kept*: `"macs=50%"`, `"params=1.2M"`, `tonsor.params(0.3)`. `by` names
    a criterion or gives scores. `rank` compares pieces over the whole model (`global`), after
    dividing by the group's mean (`normalised`), or takes the same share of each group
    (`per_group`). `keep` lists parameters, modules or patterns never to touch (what a layer
    reads is a dimension of its weight, so that stays too); `ratios` maps names to the fraction
    of a group to keep; `round_to` makes kept counts multiples; `floor`
    is the least that stays of a group, as a number or, below 1, as a fraction of it.
    """
    _check_options(rank, round_to, floor)
    if budget is None and not ratios:
        message = "say how much to keep: budget='macs=50%', or ratios={'layer1.0.conv1': 0.5}"
        raise BudgetError(message)
    scores = by if isinstance(by, Scores) else score(anatomy, by, combine=combine, seed=seed)
    bundles = _bundles(anatomy, touching(anatomy, keep))
    wanted = _wanted(anatomy, ratios or {}, {g.name for b in bundles for g in b})
    lanes = [
        make_lane(b, scores, rank, round_to, floor)
        for b in bundles
        if not any(g.name in wanted for g in b)
    ]
    fixed = [
        (
            make_lane(b, scores, rank, round_to, 1),
            next(wanted[g.name] for g in b if g.name in wanted),
        )
        for b in bundles
        if any(g.name in wanted for g in b)
    ]
    kept: dict[str, tuple[int, ...]] = {}
    for lane, fraction in fixed:
        kept |= lane.kept_indices(lane.step_at(fraction))
    made_by: dict[str, Any] = {
        "version": __version__, "by": scores.by, "rank": rank, "round_to": round_to,
        "floor": floor, "seed": seed,
    }  # fmt: skip
    if budget is not None:
        target = as_budget(budget)
        choice = _meet(anatomy, lanes, target, {n: len(k) for n, k in kept.items()}, floor)
        for lane, step in zip(lanes, choice.steps, strict=True):
            if step:
                kept |= lane.kept_indices(step)
        made_by |= {
            "budget": str(target), "limit": choice.limit, "reached": choice.cost,
            "met": choice.met,
        }  # fmt: skip
    kept = {n: k for n, k in kept.items() if len(k) < anatomy.by_name[n].size}
    return Plan(
        fingerprint=fingerprint(anatomy.model),
        keep=kept,
        layout=_layout(anatomy),
        mends=anatomy.mends,
        ties=_ties(anatomy),
        made_by=made_by,
        probe=anatomy.inputs,
    )


def _is_floor(floor: object) -> bool:
    if not isinstance(floor, (int, float)) or not math.isfinite(floor):
        return False
    return 0 < floor < 1 or int(floor) == floor >= 1


def _check_options(rank: object, round_to: object, floor: object) -> None:
    if rank not in _RANKS:
        message = f"rank must be one of {', '.join(_RANKS)}, got {rank!r}"
        raise SelectionError(message)
    if type(round_to) is not int or round_to < 1:
        message = f"round_to must be a whole number of at least 1, got {round_to!r}"
        raise SelectionError(message)
    if not _is_floor(floor):
        message = (
            f"floor must be a number of at least 1, or a fraction between 0 and 1, got {floor!r}"
        )
        raise SelectionError(message)


def _bundles(anatomy: Anatomy, kept: set[str]) -> list[list[Group]]:
    """Collect groups that must keep equal counts; one that is kept keeps its whole tie."""
    bundles: dict[object, list[Group]] = {}
    for group in anatomy.groups:
        bundles.setdefault(group.name if group.tie is None else group.tie, []).append(group)
    return [b for b in bundles.values() if all(g.prunable and g.name not in kept for g in b)]


def _wanted(anatomy: Anatomy, ratios: Mapping[str, float], free: set[str]) -> dict[str, float]:
    wanted: dict[str, float] = {}
    for name, fraction in ratios.items():
        if not 0 < fraction <= 1:
            message = (
                f"the fraction of '{name}' to keep must be above 0 and at most 1, got {fraction}"
            )
            raise SelectionError(message)
        groups = led_by(anatomy, name)
        if not groups & free:
            pins = [str(p) for g in groups for p in anatomy.by_name[g].pins[:1]]
            why = "; ".join(pins) or "no group runs through its outputs"
            message = f"'{name}' can't be given a ratio: {why}"
            raise SelectionError(message)
        wanted |= dict.fromkeys(groups & free, fraction)
    return wanted


def _meet(
    anatomy: Anatomy,
    lanes: list[Lane],
    budget: Budget,
    fixed: Mapping[str, int],
    floor: int | float,
) -> Choice:
    meter = anatomy.cost.meter(budget.target)
    whole = meter({})
    try:
        return choose(lanes, meter, budget.limit(whole), fixed)
    except BudgetError as error:
        least = (error.minimum or 0) / whole
        message = (
            f"{budget} can't be met: {least:.1%} of {whole:,} {budget.target} remain when every "
            f"free group is cut to its floor ({floor:g}), so the least that can be asked for is "
            f"{budget.target}={_percent_up(least)}; a smaller floor reaches further."
            + _holders(anatomy, lanes, fixed)
        )
        raise BudgetError(message, minimum=least) from None


def _percent_up(fraction: float) -> str:
    return f"{-(-fraction * 1000 // 1) / 10:g}%"


def _holders(anatomy: Anatomy, lanes: list[Lane], fixed: Mapping[str, int]) -> str:
    """Name the pinned groups that hold most of what remains."""
    least = {**counts_after(lanes, [len(x.keys) for x in lanes]), **fixed}  # type: ignore[arg-type]
    now = anatomy.cost.macs(least)
    shares: list[tuple[int, Group]] = []
    for group in anatomy.pinned:
        after = anatomy.cost.macs({**least, group.name: max(1, group.size // 2)})
        shares.append((now - after, group))
    shares.sort(key=lambda s: -s[0])
    held = [f"\n  {g.name}: {g.pins[0]}" for saved, g in shares[:3] if saved > 0]
    return " What holds most of it:" + "".join(held) if held else ""


def _layout(anatomy: Anatomy) -> dict[str, tuple[Axis, ...]]:
    free = {g.name for g in anatomy.groups if g.prunable}
    return {
        name: anatomy.axes(name)
        for name in anatomy.graph.tensors
        if any(leaf.name in free for a in anatomy.axes(name) for leaf in leaves(a))
    }


def _ties(anatomy: Anatomy) -> tuple[Tie, ...]:
    """Say of each tie how many indices its groups lose with every step."""
    ties: dict[int, dict[str, int]] = {}
    for group in anatomy.prunable:
        if group.tie is not None:
            ties.setdefault(group.tie, {})[group.name] = group.unit
    return tuple(ties.values())
