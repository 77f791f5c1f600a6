"""How far two scores of blocks agree on the order in which they go."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.compare import spearman


def block_correlation(
    a: BlockScores, b: BlockScores, names: Iterable[str] | None = None
) -> float | None:
    """Return Spearman's correlation over the blocks that both have judged, or some of them.

    Ties share their mean rank. It is None where fewer than three blocks are in both, or where one
    of the two gives all of them the same score.

    >>> a = BlockScores({"x": 1.0, "y": 2.0, "z": 3.0}, "l1")
    >>> block_correlation(a, BlockScores({"x": 1.0, "z": 5.0, "y": 9.0}, "l2"))
    0.5
    """
    wanted = set(a.values if names is None else names)
    both = [n for n in a.values if n in b.values and n in wanted]
    if len(both) < 3:
        return None
    found = spearman([a[n] for n in both], [b[n] for n in both])
    return None if math.isnan(found) else found
