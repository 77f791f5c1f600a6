"""One direction of a convolution: which taps of which positions meet in one pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from tonsor.criteria.geometry import Geometry

Stride = Literal["ignored", "exact"]
_NOWHERE = -(1 << 40)  # no output has its tap on this input: the stride steps over it


@dataclass(frozen=True, slots=True)
class Line:
    """One direction, seen from the positions that it makes, or from those that it reads.

    Tap `i` of output `p` lies on input `p · stride - padding + i · dilation`; where there is no
    such input, on nothing.
    """

    taps: int
    stride: int
    padding: int
    dilation: int
    inputs: int
    outputs: int
    made: bool = True

    @property
    def positions(self) -> int:
        """How many positions it is seen from."""
        return self.outputs if self.made else self.inputs

    @property
    def period(self) -> int:
        """After how many positions, away from the ends, everything is the same again."""
        return 1 if self.made else self.stride

    @property
    def reach(self) -> int:
        """How far apart two positions may be and still meet."""
        span = (self.taps - 1) * self.dilation
        return -(-span // self.stride) if self.made else span

    def shortened(self, positions: int) -> Line:
        """The same with both of its ends, and at least so many positions between them."""
        outputs = self.dilation // math.gcd(self.dilation, self.stride)
        step = outputs if self.made else outputs * self.stride
        steps = max(0, (self.positions - positions) // step)
        outputs *= steps
        return replace(
            self, inputs=self.inputs - outputs * self.stride, outputs=self.outputs - outputs
        )

    def inside(self) -> Tensor:
        """How many outputs have a given tap on an input: `[tap]`."""
        return self._within(self._others(self.positions)).sum(1)

    def meetings(self) -> Tensor:
        """Whether tap `i` of `p` and tap `j` of `q` lie on the same: `[i, j, p, q]`."""
        others = self._others(self.positions)
        return _same(others, others) & self._within(others)[:, None, :, None]

    def endless(self) -> Tensor:
        """The meetings, were there no ends."""
        others = self._others(self.positions)
        return _same(others, others)

    def edges(self) -> list[tuple[slice, Tensor]]:
        """Stretches of positions that do not meet each other, and the meetings they lack."""
        others = self._others(self.positions)
        beyond = (others != _NOWHERE) & ~self._within(others)
        at = beyond.any(0).nonzero().flatten()
        apart = (at.diff() > self.reach).nonzero().flatten() + 1
        found: list[tuple[slice, Tensor]] = []
        for stretch in at.tensor_split(apart):
            if len(stretch):
                here = slice(int(stretch[0]), int(stretch[-1]) + 1)
                mine = others[:, here]
                found.append((here, _same(mine, mine) & beyond[:, here][:, None, :, None]))
        return found

    def ring(self, blocks: int) -> Tensor:
        """The meetings of the first period with all of a ring of so many periods."""
        others, around = self._others(blocks * self.period), blocks * self.stride // self.period
        others = torch.where(others == _NOWHERE, others, others % around)
        return _same(others[:, : self.period], others)

    def _others(self, positions: int) -> Tensor:
        """The input under each tap of an output, or the other way round: `[tap, position]`."""
        tap = torch.arange(self.taps)[:, None] * self.dilation
        if self.made:
            return torch.arange(positions) * self.stride - self.padding + tap
        at = torch.arange(positions) + self.padding - tap
        return torch.where(at % self.stride == 0, at // self.stride, _NOWHERE)

    def _within(self, others: Tensor) -> Tensor:
        return (others >= 0) & (others < (self.inputs if self.made else self.outputs))


def _same(some: Tensor, others: Tensor) -> Tensor:
    same = some[:, None, :, None] == others[:, None, :]
    return same & (some != _NOWHERE)[:, None, :, None]


Lines = tuple[Line, Line]
"""Rows and columns."""


def lines(geometry: Geometry, stride: Stride) -> Lines:
    """Return both directions of a convolution.

    With stride `ignored` an output has an input of its own: stride 1, as many inputs as there are
    outputs, and the padding of which that is true ((k - 1) / 2; the smaller half first).
    """
    found: list[Line] = []
    for taps, step, padding, dilation, inputs, outputs in zip(
        geometry.kernel, geometry.stride, geometry.padding, geometry.dilation,
        geometry.input_size, geometry.output_size, strict=True,
    ):  # fmt: skip
        if stride == "ignored":
            step, padding, inputs = 1, dilation * (taps - 1) // 2, outputs
        found.append(Line(taps, step, padding, dilation, inputs, outputs, geometry.made))
    return found[0], found[1]
