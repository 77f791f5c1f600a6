"""The minibatches that criteria are learned from, one after the other for ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from tonsor.errors import SelectionError
from tonsor.train.data import Batches


class Feed:
    """Goes through minibatches again and again, and can begin anywhere.

    `Batches` are shuffled anew each time; any other iterable, such as a list or a loader, comes as
    it is.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        if isinstance(batches, Iterator):
            message = (
                "a search goes through its batches many times, and a generator is spent after one; "
                "give batches=... as a list or a loader"
            )
            raise SelectionError(message)
        self._batches = batches
        self.epoch = self.place = 0
        self._running: Iterator[Any] | None = None

    def next(self) -> Any:
        """Return the next minibatch."""
        for _ in range(2):
            if self._running is None:
                self._running = self._from_here()
            for batch in self._running:
                self.place += 1
                return batch
            if not self.place:
                break
            self.epoch, self.place, self._running = self.epoch + 1, 0, None
        message = "batches is empty, so there is nothing to learn from; give at least one minibatch"
        raise SelectionError(message)

    def go_to(self, epoch: int, place: int) -> None:
        """Go on after so many minibatches of an epoch."""
        self.epoch, self.place, self._running = epoch, place, None

    def _from_here(self) -> Iterator[Any]:
        if isinstance(self._batches, Batches):
            return self._batches.epoch(self.epoch, self.place)
        return itertools.islice(iter(self._batches), self.place, None)
