"""Data that has to be gone through more than once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any


def repeatable(batches: Iterable[Any], at_most: int | None) -> Iterable[Any]:
    """Return batches that can be gone through again; an iterator is read into memory for it.

    >>> list(repeatable(iter([1, 2, 3]), 2))
    [1, 2]
    """
    if isinstance(batches, Iterator):
        return list(itertools.islice(batches, at_most))
    return batches
