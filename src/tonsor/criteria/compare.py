"""How far two criteria agree on what matters: Spearman's correlation, group by group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tonsor.criteria.rows import Array
from tonsor.criteria.scores import Scores
from tonsor.errors import ScoreError


@dataclass(frozen=True)
class Agreement:
    """Spearman's correlation of two criteria in each group, and groups that say nothing of it.

    `value` is the mean over `groups`, each weighted by its size; it is NaN if there are none.
    """

    value: float
    groups: Mapping[str, float]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"Spearman {self.value:.3f} over {len(self.groups)} groups"]
        return "\n".join([*lines, *(f"  without {n}: {why}" for n, why in self.left_out.items())])


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return the correlation of the ranks of two vectors; ties share their mean rank.

    >>> spearman([1, 2, 3], [10, 20, 15])
    0.5

    It is NaN where either vector is all one value, or has a single element: there is no order.
    """
    left, right = _vector(a), _vector(b)
    if len(left) != len(right):
        message = f"vectors of {len(left)} and {len(right)} elements can't be correlated"
        raise ScoreError(message)
    x, y = (ranks(v) - (len(v) + 1) / 2 for v in (left, right))
    size = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / size if size else float("nan")


def agreement(a: Scores, b: Scores) -> Agreement:
    """Compare two scores of the same model in each group that both have judged."""
    groups, left_out = {}, {}
    for name in dict.fromkeys([*a.values, *b.values]):
        why = next(_unjudged(name, a, b), "")
        if why:
            left_out[name] = why
            continue
        if len(a[name]) != len(b[name]):
            message = (
                f"'{name}' has {len(a[name])} scores by '{a.by}' and {len(b[name])} by '{b.by}'; "
                "scores compare only for one and the same model"
            )
            raise ScoreError(message)
        groups[name] = spearman(a[name], b[name])
    weights = {name: len(a[name]) for name in groups}
    total = sum(weights.values())
    mean = sum(weights[n] * rho for n, rho in groups.items()) / total if total else float("nan")
    return Agreement(mean, groups, left_out)


def correlation(a: Scores, b: Scores) -> float:
    """Return the mean of Spearman's correlation over groups, each weighted by its size.

    Groups that one criterion has not judged, or gives all the same score, are left out, and
    `agreement` names them. It is NaN where no group remains.
    """
    return agreement(a, b).value


def correlations(scores: Sequence[Scores]) -> tuple[tuple[str, ...], Array]:
    """Return the names of criteria, and the matrix of how far each agrees with each."""
    names = tuple(s.by for s in scores)
    matrix = np.full((len(scores), len(scores)), np.nan)
    for i, a in enumerate(scores):
        for j, b in enumerate(scores[: i + 1]):
            matrix[i, j] = matrix[j, i] = correlation(a, b)
    return names, matrix


def _unjudged(name: str, *scores: Scores) -> Iterator[str]:
    for one in scores:
        if name not in one.values:
            yield one.unscored.get(name) or f"'{one.by}' has no scores of it"
        elif len(one[name]) < 2:
            yield "a single piece has no order"
        elif np.ptp(one[name]) == 0:
            yield f"'{one.by}' gives all pieces of it the same score"


def _vector(values: ArrayLike) -> Array:
    vector: Any = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or np.isnan(vector).any():
        what = f"one of shape {vector.shape}" if vector.ndim != 1 else "NaN"
        message = f"only a vector of numbers can be ranked, this has {what}"
        raise ScoreError(message)
    return vector


def ranks(values: Array) -> Array:
    """Rank from 1 up; equal values share the mean of the ranks that they would have."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
