"""Criteria that look at the scales of BatchNorms."""

from __future__ import annotations

from torch import Tensor

from tonsor.criteria.registry import criterion


@criterion("bn_scale", needs="scales")
def bn_scale(scale: Tensor) -> Tensor:
    """The size of the BatchNorm's scale of a piece (Network Slimming: Liu et al., 2017)."""
    return scale.abs().flatten(1).mean(1) if scale.dim() > 1 else scale.abs()


@criterion("taylor_bn", needs="scale_gradients")
def taylor_bn(
    scale: Tensor, scale_gradient: Tensor, shift: Tensor, shift_gradient: Tensor
) -> Tensor:
    """What a piece's BatchNorm adds to the loss: (scale·gradient + shift·gradient) squared."""
    added = scale * scale_gradient + shift * shift_gradient
    return added.flatten(1).sum(1).square() if added.dim() > 1 else added.square()
