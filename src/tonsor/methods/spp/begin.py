"""Before the first step of SPP: its pools, its budget, and whether all is as it has to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from tonsor.anatomy import Anatomy
from tonsor.errors import BudgetError, SelectionError
from tonsor.methods.spp.block_pools import BlockPools
from tonsor.methods.spp.channel_pools import ChannelPools
from tonsor.methods.spp.drawn import GradMode, Held, held_already
from tonsor.methods.spp.fibre_pools import FibrePools
from tonsor.methods.spp.pools import Family, Pools
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget, is_measured
from tonsor.select.names import Named


def pools_of(
    anatomy: Anatomy, family: Family, by: str, keep: Iterable[Named], after: Plan | None,
    gradient: GradMode,
) -> Pools:  # fmt: skip
    """Return the pools of a family, whose parameters are masked from then on."""
    if family in ("columns", "stripes"):
        return FibrePools(anatomy, family, by, keep, after, gradient)
    kind = ChannelPools if family == "channels" else BlockPools
    return kind(anatomy, by, keep, after, gradient)


def held_of(pools: Pools) -> list[Held]:
    """Return what is masked, each once, in the order in which that began."""
    return list({id(h): h for some in pools.held.values() for h in some}.values())


def budget_of(
    ratio: float | Mapping[str, float] | None, budget: str | Budget | None
) -> Budget | None:
    """Read what is to be kept, unless a ratio says what goes."""
    if (ratio is None) == (budget is None):
        message = "say either which part goes (ratio=0.75) or what to keep (budget='macs=25%')"
        raise BudgetError(message)
    if budget is None:
        return None
    found = as_budget(budget)
    if is_measured(found.target):
        message = "a latency can't be the budget of a training; ask for macs=... or params=..."
        raise BudgetError(message)
    return found


def check_options(anatomy: Anatomy, family: str, interval: int, gradient: str) -> None:
    """Refuse what is no choice, and a model that is masked already."""
    for name, value, known in (("family", family, Family), ("gradient", gradient, GradMode)):
        if value not in get_args(known):
            message = f"{name} must be one of {', '.join(get_args(known))}, got {value!r}"
            raise SelectionError(message)
    if type(interval) is not int or interval < 1:
        message = f"interval is a number of steps, at least 1, got {interval!r}"
        raise SelectionError(message)
    if (path := held_already(anatomy.model)) is not None:
        message = (
            f"'{path}' is masked already, by another ByChance on this model; call finish() or "
            "release() on that one first"
        )
        raise SelectionError(message)


def check_train(held: Sequence[Held]) -> None:
    """Refuse parameters that do not train."""
    for one in held:
        if not one.weight.requires_grad:
            message = (
                f"a parameter '{one.name}' of {type(one.module).__name__} is frozen, so that its "
                "rank would never change; let it train, or keep=[...] its layer"
            )
            raise SelectionError(message)
