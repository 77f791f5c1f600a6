"""Keep the memory that a run frees for the next run."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# glibc's numbers for what is set, from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_ALL = 2**31 - 1
_LARGEST = 32 * 2**20  # as far as glibc raises its own thresholds, if a process frees large blocks


@contextmanager
def heap_kept() -> Iterator[None]:
    """Have freed memory stay with the process, where the allocator is that of glibc.

    Otherwise large tensors are given back to the system and asked for again in every run, which
    can take a third of the time, and many times more of it in a part that runs alone.
    """
    set_ = _mallopt()
    if set_ is None:
        yield
        return
    try:
        set_(_TRIM_THRESHOLD, _ALL)
        set_(_MMAP_THRESHOLD, _ALL)
        yield
    finally:
        # There is no asking what they were; this is where a process that trains gets to.
        set_(_TRIM_THRESHOLD, 2 * _LARGEST)
        set_(_MMAP_THRESHOLD, _LARGEST)


def _mallopt() -> Callable[[int, int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "mallopt", None)
