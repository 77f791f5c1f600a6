"""The noun of stripes: which of the 1×1 filters that make up a convolution stay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

StripeMask = np.ndarray[Any, np.dtype[np.bool_]]
Execution = Literal["stripes", "dense"]


@dataclass(frozen=True, slots=True)
class Stripes:
    """What stays of a convolution's weight `[filter, input, *kernel]`, stripe by stripe.

    A stripe is `weight[filter, :, *position]`. `rows` has a number for each filter, of which bit
    `i` says whether the stripe at position `i` of the kernel (row-major) stays. `run` says how the
    layer is to be executed: stripe by stripe, or as a convolution whose other stripes are zero;
    empty where that was not measured.

    >>> found = Stripes.of(np.array([[True, False, True], [False, False, False]]), (3,))
    >>> found.rows, found.left, found.mask.tolist()
    ((5, 0), 2, [[True, False, True], [False, False, False]])
    """

    kernel: tuple[int, ...]
    rows: tuple[int, ...]
    run: Execution | Literal[""] = ""

    @classmethod
    def of(
        cls, mask: StripeMask, kernel: Sequence[int], run: Execution | Literal[""] = ""
    ) -> Stripes:
        """Take down a mask `[filter, position]`."""
        bits = [1 << i for i in range(math.prod(kernel))]
        rows = tuple(sum(bits[i] for i in np.flatnonzero(row).tolist()) for row in mask)
        return cls(tuple(kernel), rows, run)

    @property
    def positions(self) -> int:
        """How many positions the kernel has."""
        return math.prod(self.kernel)

    @property
    def mask(self) -> StripeMask:
        """Which stripes stay: `[filter, position]`."""
        out = np.zeros((len(self.rows), self.positions), dtype=np.bool_)
        for filter_, row in enumerate(self.rows):
            out[filter_, list(_bits(row))] = True
        return out

    @property
    def left(self) -> int:
        """How many stripes stay."""
        return sum(row.bit_count() for row in self.rows)

    @property
    def size(self) -> int:
        """How many stripes there were."""
        return len(self.rows) * self.positions

    def taking(self, kept: Sequence[int] | None) -> Stripes:
        """Return the stripes of some filters, in the coordinates of those that are kept."""
        if kept is None:
            return self
        return Stripes(self.kernel, tuple(self.rows[i] for i in kept), self.run)

    def among(self, kept: Sequence[int] | None) -> Stripes:
        """Return the same with no stripe in filters that go."""
        if kept is None:
            return self
        stay = set(kept)
        rows = tuple(row if i in stay else 0 for i, row in enumerate(self.rows))
        return Stripes(self.kernel, rows, self.run)


def _bits(row: int) -> Iterator[int]:
    place = 0
    while row:
        if row & 1:
            yield place
        row >>= 1
        place += 1


def stripe_leaf(weight: str) -> str:
    """Name what counts the stripes of a weight where costs are told."""
    return f"stripes of {weight}"
