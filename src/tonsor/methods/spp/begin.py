"""Before the first step of SPP: its budget, and whether its options are some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from tonsor.errors import BudgetError, SelectionError
from tonsor.methods.pools.base import Family
from tonsor.methods.pools.drawn import GradMode
from tonsor.select.budget import Budget, as_budget, is_measured


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


def check_options(family: str, interval: int, gradient: str) -> None:
    """Refuse what is no choice."""
    for name, value, known in (("family", family, Family), ("gradient", gradient, GradMode)):
        if value not in get_args(known):
            message = f"{name} must be one of {', '.join(get_args(known))}, got {value!r}"
            raise SelectionError(message)
    if type(interval) is not int or interval < 1:
        message = f"interval is a number of steps, at least 1, got {interval!r}"
        raise SelectionError(message)
