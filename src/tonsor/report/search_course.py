"""How a search for criteria went, as numbers to draw: from its `search.json`, or the method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tonsor.methods.lfpc import LearnedCriteria
from tonsor.methods.lfpc.run import course_data

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCourse:
    """The moments of a search, each with the cost of what was drawn and the logits of each site.

    `criteria_logits` is `[moment, site, criterion]`, and `rates_logits` `[moment, site, rate]`.
    """

    sites: tuple[str, ...]
    criteria: tuple[str, ...]
    rates: tuple[float, ...]
    target: float
    tolerance: float
    steps: tuple[int, ...]
    drawn: tuple[float, ...]
    expected: tuple[float, ...]
    criteria_logits: Array
    rates_logits: Array

    def __post_init__(self) -> None:
        """Refuse what is no course of a search."""
        moments, sites = len(self.steps), len(self.sites)
        if not moments or not sites:
            message = "the search has no moments or no sites; draw one that has taken a step"
            raise ValueError(message)
        for name, logits, last in (
            ("criteria", self.criteria_logits, len(self.criteria)),
            ("rates", self.rates_logits, len(self.rates)),
        ):
            if logits.shape != (moments, sites, last):
                message = (
                    f"the logits of {name} have the shape {logits.shape}, but there are {moments} "
                    f"moments, {sites} sites and {last} {name}"
                )
                raise ValueError(message)

    def thinned(self, most: int) -> SearchCourse:
        """Return about so many of the moments at the most, the first and the last among them."""
        count = len(self.steps)
        kept = sorted({*range(0, count, -(-count // most)), count - 1})
        return replace(
            self, criteria_logits=self.criteria_logits[kept], rates_logits=self.rates_logits[kept],
            **{
                name: tuple(getattr(self, name)[i] for i in kept)
                for name in ("steps", "drawn", "expected")
            },
        )  # fmt: skip

    @property
    def criteria_learned(self) -> bool:
        """Whether the odds of criteria were learned; if not, their logits never move from 0."""
        return bool(self.criteria_logits.any())

    @property
    def criteria_odds(self) -> Array:
        """The odds of criteria, `[moment, site, criterion]`."""
        return _softmax(self.criteria_logits)

    @property
    def rates_odds(self) -> Array:
        """The odds of rates, `[moment, site, rate]`."""
        return _softmax(self.rates_logits)

    @property
    def expected_rates(self) -> Array:
        """The mean of the rates by their odds, `[moment, site]`."""
        return self.rates_odds @ np.array(self.rates)


def read_search(path: str | Path) -> SearchCourse:
    """Read the `search.json` that `search_criteria` has written."""
    return _course(json.loads(Path(path).read_text("utf-8")))


def course_of(method: LearnedCriteria) -> SearchCourse:
    """Return how a search has gone until now."""
    return _course(course_data(method))


def _course(data: Mapping[str, Any]) -> SearchCourse:
    moments: Sequence[Mapping[str, Any]] = data["moments"]
    return SearchCourse(
        sites=tuple(data["sites"]), criteria=tuple(data["criteria"]), rates=tuple(data["rates"]),
        target=data["target"], tolerance=data["tolerance"],
        steps=tuple(m["step"] for m in moments), drawn=tuple(m["drawn"] for m in moments),
        expected=tuple(m["expected"] for m in moments),
        criteria_logits=np.array([m["criteria"] for m in moments], np.float64),
        rates_logits=np.array([m["rates"] for m in moments], np.float64),
    )  # fmt: skip


def _softmax(logits: Array) -> Array:
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
