"""How sure a median of noisy timings is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median

SURE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long one takes as another: a median, and the interval it is known to."""

    median: float
    low: float
    high: float

    @property
    def within(self) -> float:
        """Half the width of the interval, as a fraction of the median."""
        return (self.high - self.low) / (2 * self.median) if self.median else 0.0

    def __str__(self) -> str:
        return f"{self.median:.1%} ({self.low:.1%} to {self.high:.1%})"


def interval_of_median(values: Sequence[float], sure: float = SURE) -> tuple[float, float]:
    """Return the interval that holds the true median with at least this probability.

    It is between two of the values, whatever distribution they come from; of five values or
    less none is that sure, and it is all of them.

    >>> interval_of_median(range(1, 16))
    (4, 12)
    """
    ordered = sorted(values)
    n = len(ordered)
    outside, spared = 0.0, 0
    while spared < (n - 1) // 2:
        outside += comb(n, spared) / 2**n
        if 2 * outside > 1 - sure:
            break
        spared += 1
    first = max(0, spared - 1)
    return ordered[first], ordered[n - 1 - first]


def paired(ours: Sequence[float], over: Sequence[float]) -> Ratio:
    """Compare timings round by round, so that what slows a whole round counts for nothing.

    >>> paired([1, 20, 3], [2, 40, 6]).median
    0.5
    """
    ratios = [a / b for a, b in zip(ours, over, strict=True)]
    return Ratio(median(ratios), *interval_of_median(ratios))
