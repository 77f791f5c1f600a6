"""Which groups can be ranked: those that have scores which fit them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tonsor.criteria.score import Scores
from tonsor.errors import ScoreError, SelectionError
from tonsor.select.rank import Alive, Array
from tonsor.types import Group

Bundle = Sequence[Group]
"""Groups that lose indices together."""


def judged(bundles: Sequence[Bundle], scores: Scores) -> Scores:
    """Return the scores of the groups of bundles, and for those that have none the reason.

    A bundle goes as a whole, so one group without scores is the reason for all of it.
    """
    values: dict[str, object] = dict(scores.values)
    unscored: dict[str, str] = {}
    for bundle in bundles:
        without = [g.name for g in bundle if g.name not in values]
        for name in without:
            unscored[name] = scores.unscored.get(name) or f"'{scores.by}' gives it no scores"
        for group in bundle if without else ():
            unscored.setdefault(group.name, f"it must shrink with '{without[0]}', which has none")
    fitting = {
        g.name: _fitting(g, values[g.name])
        for bundle in bundles
        for g in bundle
        if g.name not in unscored
    }
    return Scores(fitting, scores.by, unscored)


def of_those_left(scores: Scores, alive: Mapping[str, Alive]) -> Scores:
    """Return scores without those of pieces that are gone already."""
    values = {n: v[alive[n]] if n in alive else v for n, v in scores.values.items()}
    return Scores(values, scores.by, scores.unscored)


def _fitting(group: Group, given: object) -> Array:
    """Return the scores of a group as numbers, or refuse what is none of this group."""
    try:
        values = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"the scores of '{group.name}' are no numbers: {error}"
        raise ScoreError(message) from None
    if values.shape != (group.size,):
        message = (
            f"the scores of '{group.name}' are of shape {values.shape}, but it has {group.size} "
            "pieces. Were they made for this model, before it was cut?"
        )
        raise SelectionError(message)
    if not np.isfinite(values).all():
        number = int((~np.isfinite(values)).sum())
        message = (
            f"{number} of the {group.size} scores of '{group.name}' are NaN or infinite, so its "
            "pieces can't be ranked. What is never to go can be named in keep=."
        )
        raise ScoreError(message)
    return values
