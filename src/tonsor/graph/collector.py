"""Keep the garbage collector from looking through a growing record again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause automatic garbage collection.

    Tracing makes very many small objects that all stay alive. Each of them brings the next
    full collection nearer, and with a large model in memory those cost more than the trace.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
