"""The automatic skip list: groups whose scores have their long tail on the wrong side."""

from __future__ import annotations

import numpy as np

from tonsor.criteria.score import Scores
from tonsor.select.rank import Array


def skewness(values: Array) -> float:
    """Return the sample skewness g1, which is m3 / m2^1.5; scores that are all equal have none.

    >>> skewness(np.array([0.0, 0.0, 0.0, 1.0])), skewness(np.array([1.0, 1.0]))
    (1.154..., 0.0)
    """
    if not len(values) or np.ptp(values) == 0:
        return 0.0
    apart = values - values.mean()
    apart = apart / np.abs(apart).max()  # or tiny scores would have no third power
    return float((apart**3).mean() / (apart**2).mean() ** 1.5)


def skewed(scores: Scores, threshold: float = 0.0) -> dict[str, float]:
    """Name the groups whose skewness is above a threshold, with what it is.

    A layer with a long tail towards small scores (skewed to the left, below 0) has pieces that
    matter less than the rest of it, and is robust. One without has none to spare: it is better
    left whole.
    """
    found = {name: skewness(values) for name, values in scores.values.items()}
    return {name: g1 for name, g1 in found.items() if g1 > threshold}
