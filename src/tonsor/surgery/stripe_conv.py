"""Convolutions that hold only some of their stripes: 1×1 filters at positions of the kernel.

By stripes, all of them run as one 1×1 convolution and each is added to its filter, shifted to its
position; what a stride skips is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.fibres import Execution, FibreMask, Kind, Run
from tonsor.surgery.fibre_conv import FibreConv, holding
from tonsor.surgery.shifts import added_up, gathered, sources

_WIDE, _FEW = 128, 0.4  # from so many inputs on, and up to this share, stripes are likely faster


class StripeConv(FibreConv):
    """A convolution of any rank that holds the stripes of a mask; see `StripeConv2d`."""

    kind: ClassVar[Kind] = "stripes"
    filters: Tensor
    sources: Tensor

    def _picks(self, positions: Tensor, rows: Tensor) -> dict[str, Tensor]:
        from_ = sources(self._mask, self.kernel_size, self.stride, self.dilation)
        return {"filters": rows, "sources": torch.from_numpy(from_)}

    def _likely(self) -> Execution:
        wide = self.groups == 1 and self.in_channels >= _WIDE
        return "stripes" if wide and len(self.weight) <= _FEW * self.kept.numel() else "dense"

    def _run(self, x: Tensor, pads: Sequence[tuple[int, int]], *, whole: bool) -> Tensor:
        run, where = (gathered, self.sources) if whole else (added_up, self.filters)
        return run(
            x, self.weight, self.bias, where, self.counts, kernel=self.kernel_size,
            stride=self.stride, dilation=self.dilation, pads=pads, out_channels=self.out_channels,
        )  # fmt: skip


class StripeConv1d(StripeConv):
    """A convolution along one dimension that holds only some of its stripes."""

    rank = 1


class StripeConv2d(StripeConv):
    """A convolution that holds only some of its stripes.

    `mask` says which: `[filter, position of the kernel]`; `weight` has a row of inputs for each
    that stays, position after position. `run` is how it is executed outside of training.

    >>> mask = np.zeros((64, 9), dtype=bool)
    >>> mask[:, 4] = mask[:36, 1] = True
    >>> layer = StripeConv2d(3, 64, mask, (3, 3), padding=1)
    >>> layer
    StripeConv2d(3, 64, stripes=100/576)
    >>> layer(torch.randn(1, 3, 8, 8)).shape, layer.weight.shape
    (torch.Size([1, 64, 8, 8]), torch.Size([100, 3]))
    """

    rank = 2


class StripeConv3d(StripeConv):
    """A convolution along three dimensions that holds only some of its stripes."""

    rank = 3


def striped(conv: nn.Module, mask: FibreMask, run: Run = "") -> StripeConv:
    """Return the layer that holds these stripes of a convolution, with its weights and gradient."""
    return holding((StripeConv1d, StripeConv2d, StripeConv3d), conv, np.asarray(mask), run)
