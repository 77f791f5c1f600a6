"""How many filters of a convolution keep the same stripes."""

from __future__ import annotations

import math

import numpy as np

from tonsor.fibres import FibreMask


def shared_by(mask: FibreMask) -> int:
    """Return the largest number of consecutive filters that share their stripes throughout.

    The last group of filters may be smaller.

    >>> rows = [[True, False]] * 4 + [[True, True]] * 2
    >>> shared_by(np.array(rows)), shared_by(np.array(rows[1:])), shared_by(np.array(rows[:4]))
    (4, 3, 4)
    """
    changes = np.flatnonzero((mask[1:] != mask[:-1]).any(axis=1)) + 1
    return math.gcd(*changes.tolist()) if len(changes) else len(mask)
