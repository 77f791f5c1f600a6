"""Before the first step: the budget, the criteria, and the odds to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import Tensor

from tonsor.errors import BudgetError, SelectionError
from tonsor.methods.lfpc.decide import Aim
from tonsor.methods.lfpc.sampler import tilt
from tonsor.methods.lfpc.search import CRITERIA, Search
from tonsor.methods.lfpc.sites import Sites
from tonsor.methods.pools.base import Expected
from tonsor.select.budget import Budget, as_budget, is_measured, is_speedup

Choice = Literal["learned", "random"]


def budget_of(given: str | Budget) -> Budget:
    """Read a budget that can be followed with gradients."""
    found = as_budget(given)
    if is_measured(found.target) or is_speedup(found.target):
        message = (
            f"{found} can't be searched for, as it is no sum of what parts cost; ask for macs=..., "
            "params=... or another cost that adds up"
        )
        raise BudgetError(message)
    return found


def names_of(criteria: Sequence[Any]) -> tuple[str, ...]:
    """Return the names of criteria, each of which may be there once."""
    if isinstance(criteria, str) or not criteria:
        message = f"criteria is a list, such as {CRITERIA}, got {criteria!r}"
        raise SelectionError(message)
    names = tuple(c if isinstance(c, str) else str(getattr(c, "by", c)) for c in criteria)
    if len(set(names)) < len(names):
        message = f"each criterion may be there once, got {', '.join(names)}"
        raise SelectionError(message)
    return names


def check_steps(steps: object) -> None:
    """Refuse a search of no length."""
    if type(steps) is not int or steps < 1:
        message = f"steps is how many steps the search takes, at least 1, got {steps!r}"
        raise SelectionError(message)


def fixed_criteria(
    sites: Sites, criteria: Sequence[str], choice: Choice | Mapping[str, str], seed: int
) -> Tensor | None:
    """Return one criterion for each site where it is not learned: drawn by the seed, or given."""
    if choice == "learned":
        return None
    if isinstance(choice, Mapping):
        numbers = [_given(site.name, criteria, choice) for site in sites.every]
    elif choice == "random":
        generator = torch.Generator().manual_seed(seed + 1)
        numbers = torch.randint(len(criteria), (len(sites),), generator=generator).tolist()
    else:
        message = f"choice is 'learned', 'random', or criteria by patterns, got {choice!r}"
        raise SelectionError(message)
    return torch.nn.functional.one_hot(torch.tensor(numbers), len(criteria)).double()


def _given(site: str, criteria: Sequence[str], choice: Mapping[str, str]) -> int:
    found = [by for pattern, by in choice.items() if fnmatchcase(site, pattern)]
    if not found:
        message = f"choice says no criterion for '{site}'; end it with a pattern such as '*'"
        raise SelectionError(message)
    if found[0] not in criteria:
        message = f"choice has '{found[0]}' for '{site}', which is none of {', '.join(criteria)}"
        raise SelectionError(message)
    return list(criteria).index(found[0])


def begin_of(
    sites: Sites, expected: Expected, criteria: int, aim: Aim, how: Search
) -> Tensor | None:
    """Return the logits of rates to begin with, after making sure that the target is in reach."""
    every = torch.full((len(sites), criteria), 1 / criteria, dtype=torch.float64)

    def cost(odds: Tensor) -> float:
        return float(expected(sites.masks(every, odds.expand(len(sites), -1))))

    ends, rates = torch.eye(len(how.rates), dtype=torch.float64), how.rates
    least, most = cost(ends[-1]), cost(ends[0])
    if aim.misses(least) > 0:
        message = (
            f"a cost of {aim.target:,.6g} can't be reached by rates up to {rates[-1]:g}: "
            f"{least:,.6g} of {most:,.6g} are left where all sites take that. Let rates go "
            "further, or keep more"
        )
        raise BudgetError(message, minimum=least)
    if aim.misses(most) < 0:
        message = (
            f"a cost of {aim.target:,.6g} can't be kept by rates from {rates[0]:g} on, by which "
            f"at most {most:,.6g} are left; let them begin at 0"
        )
        raise BudgetError(message)
    if how.begin == "even":
        return None
    return tilt(rates, cost, min(max(aim.target, least), most))
