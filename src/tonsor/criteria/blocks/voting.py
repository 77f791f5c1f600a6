"""The ensemble of LayerPrune: several criteria vote on blocks by their ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.compare import ranks
from tonsor.errors import ScoreError

FIVE: Mapping[str, str] = MappingProxyType({
    "weight norm": "l2:squared=True",
    "feature maps": "taylor_map",
    "taylor": "taylor_gate",
    "batchnorm": "bn_scale",
    "median": "geometric_median",
})  # fmt: skip
"""The five criteria of LayerPrune by the names that its tables have, as criteria of ours."""


def vote(scores: Sequence[BlockScores]) -> BlockScores:
    """Add up the ranks of blocks, from 0 for the least important; ties share their mean rank.

    A block that one of the criteria can't judge has no score.

    >>> a, b = BlockScores({"x": 0.1, "y": 0.5}, "l1"), BlockScores({"x": 3.0, "y": 2.0}, "l2")
    >>> dict(vote([a, b]).values)
    {'x': 1.0, 'y': 1.0}
    """
    if not scores:
        message = (
            "an ensemble needs at least one criterion; name some, as in 'ensemble:l1+bn_scale'"
        )
        raise ScoreError(message)
    known = [n for n in scores[0].values if all(n in s.values for s in scores)]
    unscored = {
        name: f"'{s.by}' can't judge it: {s.unscored.get(name, 'it has no score of it')}"
        for s in scores
        for name in dict.fromkeys([*scores[0].values, *s.unscored, *s.values])
        if name not in s.values
    }
    if not known:
        message = f"no block is judged by all of {', '.join(s.by for s in scores)}"
        raise ScoreError(message)
    votes = sum(ranks(np.array([s[n] for n in known])) - 1 for s in scores)
    members = [s.by for s in scores]
    values = dict(zip(known, np.asarray(votes).tolist(), strict=True))
    samples = max((s.conditions.get("samples", 0) for s in scores), default=0)
    conditions = {"members": members, **({"samples": samples} if samples else {})}
    return BlockScores(values, "ensemble", unscored, conditions)
