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
from tonsor.surgery.fibre_conv import FibreConv, holding, watched
from tonsor.surgery.products import multiplied, padded, sliced, starts_of
from tonsor.surgery.shifts import out_sizes

# From so many channels on, and up to this share, columns are likely faster.
_WIDE = ((128, 0.4), (64, 0.25))


class ColumnConv(FibreConv):
    """A convolution of any rank that holds the columns of a mask; see `ColumnConv2d`."""

    kind: ClassVar[Kind] = "columns"
    taps: Tensor

    def _say_where(self, device: torch.device) -> None:
        super()._say_where(device)
        self._starts = _Starts()

    def _picks(self, positions: Tensor, rows: Tensor) -> dict[str, Tensor]:
        places = np.unravel_index(positions.numpy(), self.kernel_size)
        return {"taps": torch.stack([rows, *(torch.from_numpy(p.copy()) for p in places)])}

    def _likely(self) -> Execution:
        narrow = min(self.in_channels, self.out_channels) if self.groups == 1 else 0
        few = next((share for wide, share in _WIDE if narrow >= wide), 0.0)
        return "columns" if len(self.weight) < few * self.kept.numel() else "dense"

    def _run(self, x: Tensor, pads: Sequence[tuple[int, int]], *, whole: bool) -> Tensor:
        sizes = out_sizes(x.shape[2:], self.kernel_size, self.stride, self.dilation, pads)
        x = padded(x, pads)
        if whole:
            return sliced(
                x, self.weight, self.bias, self.taps[0], self.counts, self.kernel_size, sizes,
                self.stride, self.dilation,
            )  # fmt: skip
        starts = self._starts.of(self.taps, x.shape[2:], self.dilation)
        return multiplied(x, self.weight, self.bias, starts, sizes, self.stride)


class _Starts:
    """Where columns start to read, for as long as inputs are of the same size.

    It is no part of the layer: copies and files of that start without.
    """

    __slots__ = ("_about", "_found")

    def __init__(self) -> None:
        self._about: tuple[Tensor, Sequence[int]] | None = None
        self._found: Tensor | None = None

    def of(self, taps: Tensor, sizes: Sequence[int], dilation: Sequence[int]) -> Tensor:
        """Return what is known of these taps, or find it out."""
        if self._about is not None and self._found is not None:
            known, at = self._about
            if known is taps and at == sizes:
                return self._found
        found = starts_of(taps, sizes, dilation)
        # What was made in inference mode would be refused where there are gradients.
        if not (watched() or found.is_inference()):
            self._about, self._found = (taps, tuple(sizes)), found
        return found

    def __reduce__(self) -> tuple[type[_Starts], tuple[()]]:
        return _Starts, ()


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
