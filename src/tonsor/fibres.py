"""The noun of fibres: which stripes or columns of a convolution stay.

A fibre of a weight `[filter, input, *kernel]` is what is left of it when all but one of its
dimensions are fixed. Along the inputs it is a stripe, `weight[filter, :, *position]`; along the
filters it is a column, `weight[:, input, *position]`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

FibreMask = np.ndarray[Any, np.dtype[np.bool_]]
Kind = Literal["stripes", "columns"]
Execution = Literal["stripes", "columns", "dense"]
Run = Execution | Literal[""]


@dataclass(frozen=True, slots=True)
class Fibres:
    """What stays of a convolution's weight, fibre by fibre.

    `rows` has a number for each filter, if these are stripes, or for each input, if they are
    columns. Bit `i` of it says whether the fibre at position `i` of the kernel (row-major) stays.
    `run` says how the layer is to be executed: by its fibres, or as a convolution whose other
    fibres are zero; empty where that was not measured.

    >>> found = Fibres.of("stripes", np.array([[True, False, True], [False, False, False]]), (3,))
    >>> found.rows, found.left, found.mask.tolist()
    ((5, 0), 2, [[True, False, True], [False, False, False]])
    """

    kind: Kind
    kernel: tuple[int, ...]
    rows: tuple[int, ...]
    run: Run = ""

    @classmethod
    def of(cls, kind: Kind, mask: FibreMask, kernel: Sequence[int], run: Run = "") -> Fibres:
        """Take down a mask `[filter or input, position]`."""
        bits = [1 << i for i in range(math.prod(kernel))]
        rows = tuple(sum(bits[i] for i in np.flatnonzero(row).tolist()) for row in mask)
        return cls(kind, tuple(kernel), rows, run)

    @property
    def dim(self) -> int:
        """The dimension of the weight that `rows` go along."""
        return dim_of(self.kind)

    @property
    def positions(self) -> int:
        """How many positions the kernel has."""
        return math.prod(self.kernel)

    @property
    def mask(self) -> FibreMask:
        """Which fibres stay: `[filter or input, position]`."""
        out = np.zeros((len(self.rows), self.positions), dtype=np.bool_)
        for index, row in enumerate(self.rows):
            out[index, list(_bits(row))] = True
        return out

    @property
    def left(self) -> int:
        """How many fibres stay."""
        return sum(row.bit_count() for row in self.rows)

    @property
    def size(self) -> int:
        """How many fibres there were."""
        return len(self.rows) * self.positions

    def taking(self, kept: Sequence[Sequence[int] | None] | None) -> Fibres:
        """Return the fibres of what is kept of a weight, in the coordinates of what is kept."""
        mine = None if kept is None else kept[self.dim]
        return self if mine is None else replace(self, rows=tuple(self.rows[i] for i in mine))

    def among(self, kept: Sequence[Sequence[int] | None] | None) -> Fibres:
        """Return the same with no fibre in what is not kept of a weight."""
        mine = None if kept is None else kept[self.dim]
        if mine is None:
            return self
        stay = set(mine)
        rows = tuple(row if i in stay else 0 for i, row in enumerate(self.rows))
        return replace(self, rows=rows)


def _bits(row: int) -> Iterator[int]:
    place = 0
    while row:
        if row & 1:
            yield place
        row >>= 1
        place += 1


def dim_of(kind: Kind) -> int:
    """Return the dimension of a weight along which fibres lie side by side."""
    return 0 if kind == "stripes" else 1


def rows_of(kind: Kind) -> str:
    """Say what the fibres of a kind are told by, beside their position."""
    return "filters" if kind == "stripes" else "inputs"


def fibre_leaf(kind: Kind, weight: str) -> str:
    """Name what counts the fibres of a weight where costs are told."""
    return f"{kind} of {weight}"
