"""How many threads share a computation, where the default is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let many small matrices be done one after the other, each by one thread.

    Threads that share a small matrix wait for each other longer than they compute: on two busy
    cores that took four times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
