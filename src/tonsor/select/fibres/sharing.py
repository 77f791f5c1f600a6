"""Filters that share which of their stripes stay: groups of them, that lose a position as one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from tonsor.axes.tree import Mask
from tonsor.criteria.rows import Array
from tonsor.errors import SelectionError
from tonsor.fibres import FibreMask

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Sharing:
    """Which fibres of a layer go as one: those of the rows of a group, at one position.

    `size` consecutive rows (filters, of stripes) are a group, the last of which may be smaller.
    Rows that are not `left` do not count, so that groups are of the layer as it is without them.
    `there` says which fibres there are to choose from.

    >>> whole = np.ones((5, 2), dtype=np.bool_)
    >>> shared = Sharing(2, whole.all(axis=1), whole)
    >>> shared.rows.tolist(), shared.groups, shared.counts.tolist()
    ([0, 0, 1, 1, 2], 3, [[2, 2], [2, 2], [1, 1]])
    >>> shared.mean(np.arange(10.0).reshape(5, 2)).tolist()
    [[1.0, 2.0], [5.0, 6.0], [8.0, 9.0]]
    """

    size: int
    left: Mask
    there: FibreMask

    @property
    def alone(self) -> bool:
        """Whether each fibre goes by itself."""
        return self.size == 1

    @cached_property
    def slots(self) -> Numbers:
        """The place of each row among those that are left; of others, of the one before."""
        if self.alone:
            return np.arange(len(self.left), dtype=np.int64)
        return np.maximum(np.cumsum(self.left, dtype=np.int64) - 1, 0)

    @cached_property
    def rows(self) -> Numbers:
        """The group of each row."""
        return np.floor_divide(self.slots, self.size)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return int(self.rows[-1]) + 1

    @cached_property
    def _units(self) -> Numbers:
        """A number for each fibre, the same for those that go as one."""
        positions = np.arange(self.there.shape[1], dtype=np.int64)
        return np.add(self.rows[:, None] * len(positions), positions)

    @cached_property
    def counts(self) -> Numbers:
        """How many fibres there are to choose from: `[group, position]`."""
        return self._sizes(self.there).reshape(self.groups, -1)

    def spread(self, values: Array) -> Array:
        """Show values `[group, position]` as values `[row, position]`."""
        return values[self.rows]

    def mean(self, values: Array) -> Array:
        """Return the mean of the values `[row, position]` of each group, of what is there."""
        sums = np.zeros((self.groups, values.shape[1]))
        np.add.at(sums, self.rows, np.where(self.there, values, 0.0))
        return sums / np.maximum(self.counts, 1)

    def some(self, mask: FibreMask) -> FibreMask:
        """Return where any row of a group has something: `[group, position]`."""
        return self._sizes(mask).reshape(self.groups, -1) > 0

    def lower(self, values: Array) -> Numbers:
        """Count for each fibre those of lower value, or of the same and before it.

        Values have to be the same within a group. Fibres that go as one are not told apart.
        """
        order = np.argsort(self._highest(values, self.there), kind="stable")
        sizes = self.counts.reshape(-1)[order]
        found = np.empty_like(sizes)
        found[order] = np.cumsum(sizes) - sizes
        return found[self._units]

    def best(self, values: Array, among: FibreMask, least: int) -> FibreMask:
        """Return those of the highest value, at least so many, no group of them in part."""
        order = np.argsort(-self._highest(values, among), kind="stable")
        enough = int(np.searchsorted(np.cumsum(self._sizes(among)[order]), least)) + 1
        return among & self.holding(order[:enough])

    def units(self, mask: FibreMask) -> Numbers:
        """Name, by ascending numbers, what the fibres of a mask are of that goes as one."""
        return np.unique(self._units[mask])

    def holding(self, units: Numbers) -> FibreMask:
        """Return the mask of the fibres of what `units` names."""
        held = np.zeros(self.groups * self.there.shape[1], dtype=np.bool_)
        held[units] = True
        return held[self._units]

    def _sizes(self, mask: FibreMask) -> Numbers:
        whole = self.groups * self.there.shape[1]
        return np.bincount(self._units[mask], minlength=whole).astype(np.int64)

    def _highest(self, values: Array, among: FibreMask) -> Array:
        found = np.full(self.groups * self.there.shape[1], -np.inf)
        np.maximum.at(found, self._units[among], values[among])
        return found


def checked_group(size: object) -> int:
    """Refuse what is no number of filters."""
    if type(size) is not int or size < 1:
        message = (
            f"stripe_group is how many filters share their stripes, at least 1, got {size!r}; 1 "
            "has each filter choose its own, and 8, 16 or 32 suit GPUs"
        )
        raise SelectionError(message)
    return size
