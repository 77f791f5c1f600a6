"""Batch norms that use running statistics, folded into the convolution before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.deploy.layers import own_copy
from tonsor.surgery.fibre_conv import FibreConv


@dataclass(frozen=True, slots=True)
class Norm:
    """A batch norm: its statistics and, where it has them, its scale and shift."""

    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    @property
    def scale(self) -> Tensor:
        """What each channel is multiplied by, in float64."""
        scale = torch.rsqrt(self.var.detach().double() + self.eps)
        return scale if self.weight is None else scale * self.weight.detach().double()

    def shifted(self, bias: Tensor | None) -> Tensor:
        """Return what is added to each channel, after a convolution with this bias."""
        mean = self.mean.detach().double()
        shift = (-mean if bias is None else bias.detach().double() - mean) * self.scale
        return shift if self.bias is None else shift + self.bias.detach().double()


@torch.no_grad()
def folded(conv: Any, norm: Norm) -> nn.Module:
    """Return a convolution that computes what a convolution and a batch norm after it do.

    >>> conv, norm = nn.Conv1d(2, 4, 1), nn.BatchNorm1d(4).eval()
    >>> x = torch.randn(1, 2, 5)
    >>> one = folded(conv, Norm(norm.running_mean, norm.running_var, None, None, norm.eps))
    >>> torch.allclose(one(x), norm(conv(x)), atol=1e-6)
    True
    """
    made: Any = own_copy(conv)
    scaled = made.weight.double() * _of_weight(made, norm.scale)
    made.weight = nn.Parameter(scaled.to(made.weight.dtype), requires_grad=False)
    shift = norm.shifted(made.bias).to(made.weight.dtype)
    made.bias = nn.Parameter(shift, requires_grad=False)
    return made


def _of_weight(conv: Any, scale: Tensor) -> Tensor:
    """Spread what belongs to each filter over a weight."""
    if not isinstance(conv, FibreConv):
        return scale.view(-1, *[1] * (conv.weight.dim() - 1))
    rows = conv.place // max(1, conv.kept[0].numel())
    if conv.kind == "stripes":
        return scale[rows].unsqueeze(1)
    # The filters that a column belongs to are those of the group that its input is read by.
    return scale.view(conv.groups, -1)[rows // (conv.in_channels // conv.groups)]
