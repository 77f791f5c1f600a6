"""Which filters lie in one block, so that few of them compute stripes that they do not have.

All filters of a block run over the positions that any of them has. Filters with the same skeleton
lose nothing by that, so they come together first; what is left is joined so that unions stay small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tonsor.fibres import FibreMask

Indices = np.ndarray[Any, np.dtype[np.int64]]
NONE = -1
"""Stands in a block for a filter that there is not."""


def in_order(filters: int, block: int) -> Indices:
    """Return blocks of filters `[block, place]` in the order in which they are.

    >>> in_order(5, 4).tolist()
    [[0, 1, 2, 3], [4, -1, -1, -1]]
    """
    return _blocks(np.arange(filters), block)


def laid_together(mask: FibreMask, block: int) -> Indices:
    """Return blocks of filters `[block, place]` whose stripes `mask[filter, position]` are alike.

    >>> mask = np.array([[1, 0], [0, 1], [1, 0], [0, 0], [0, 1]], dtype=bool)
    >>> laid_together(mask, 2).tolist()
    [[1, 4], [0, 2], [3, -1]]
    """
    _, which, counts = np.unique(mask, axis=0, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    order = np.argsort(which, kind="stable")
    among = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    full = (among < (counts // block * block)[which[order]]) & mask[order].any(axis=1)
    rest = order[~full]
    some = mask[rest].any(axis=1)
    # Filters without any stripe come last: they fill up a block, or make one that does nothing.
    last = np.concatenate([_greedy(mask, rest[some], block), rest[~some]])
    return np.concatenate([order[full].reshape(-1, block), _blocks(last, block)])


def unions(mask: FibreMask, blocks: Indices) -> FibreMask:
    """Return the positions that any filter of a block has: `[block, position]`."""
    none = np.zeros_like(mask[:1])
    return np.any(np.concatenate([mask, none])[blocks], axis=1)


def _greedy(mask: FibreMask, rest: Indices, block: int) -> Indices:
    """Order filters so that each next one adds least to the union of its block."""
    pool, size = mask[rest], mask[rest].sum(axis=1)
    free = np.ones(len(rest), dtype=np.bool_)
    found = np.empty(len(rest), dtype=np.int64)
    union = np.zeros(mask.shape[1], dtype=np.bool_)
    for turn in range(len(rest)):
        if turn % block == 0:
            union = np.zeros_like(union)
            cost = -size
        else:
            # Of those that add the same, the one that fills the union best leaves least behind.
            cost = (pool & ~union).sum(axis=1) * (mask.shape[1] + 1) - size
        pick = int(np.flatnonzero(free)[np.argmin(cost[free])])
        free[pick], found[turn] = False, rest[pick]
        union = union | pool[pick]
    return found


def _blocks(filters: Indices, block: int) -> Indices:
    out = np.full(-(-len(filters) // block) * block, NONE, dtype=np.int64)
    out[: len(filters)] = filters
    return out.reshape(-1, block)
