"""Convolutions that hold only some of their columns: one tap of one input, in all filters.

By columns, what the taps read is gathered into a matrix, of which the filters are one product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.fibres import Execution, FibreMask, Kind, Run
from tonsor.surgery.fibre_conv import FibreConv, holding
from tonsor.surgery.products import multiplied, sliced

_WIDE, _FEW = 64, 0.4  # from so many filters on, and up to this share, columns are likely faster


class ColumnConv(FibreConv):
    """A convolution of any rank that holds the columns of a mask; see `ColumnConv2d`."""

    kind: ClassVar[Kind] = "columns"
    taps: Tensor

    def _picks(self, positions: Tensor, rows: Tensor) -> dict[str, Tensor]:
        places = np.unravel_index(positions.numpy(), self.kernel_size)
        return {"taps": torch.stack([rows, *(torch.from_numpy(p.copy()) for p in places)])}

    def _likely(self) -> Execution:
        wide = self.groups == 1 and min(self.in_channels, self.out_channels) >= _WIDE
        return "columns" if wide and len(self.weight) <= _FEW * self.kept.numel() else "dense"

    def _run(self, x: Tensor, pads: Sequence[tuple[int, int]], *, whole: bool) -> Tensor:
        geometry = (self.kernel_size, self.stride, self.dilation, pads)
        if whole:
            return sliced(x, self.weight, self.bias, self.taps, self.counts, *geometry)
        return multiplied(x, self.weight, self.bias, self.taps, *geometry)


class ColumnConv1d(ColumnConv):
    """A convolution along one dimension that holds only some of its columns."""

    rank = 1


class ColumnConv2d(ColumnConv):
    """A convolution that holds only some of its columns.

    `mask` says which: `[input, position of the kernel]`; `weight` has a row of filters for each
    that stays, position after position. `run` is how it is executed outside of training.

    >>> mask = np.zeros((64, 9), dtype=bool)
    >>> mask[:, 4] = mask[:36, 1] = True
    >>> layer = ColumnConv2d(64, 32, mask, (3, 3), padding=1)
    >>> layer
    ColumnConv2d(64, 32, columns=100/576)
    >>> layer(torch.randn(1, 64, 8, 8)).shape, layer.weight.shape
    (torch.Size([1, 32, 8, 8]), torch.Size([100, 32]))
    """

    rank = 2


class ColumnConv3d(ColumnConv):
    """A convolution along three dimensions that holds only some of its columns."""

    rank = 3


def columned(conv: nn.Module, mask: FibreMask, run: Run = "") -> ColumnConv:
    """Return the layer that holds these columns of a convolution, with its weights and gradient."""
    return holding((ColumnConv1d, ColumnConv2d, ColumnConv3d), conv, np.asarray(mask), run)
