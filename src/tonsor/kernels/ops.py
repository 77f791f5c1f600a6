"""The kernels as an operator of torch, so that graphs can hold them.

`torch.ops.tonsor.convolve` is what a deployed layer is in an exported or compiled program. It has
a shape without being run, so that meta and fake tensors pass; and where there is no kernel, it
reads the packed weights back and runs as torch's own convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.convolve import DTYPES, convolve, misfit
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import library
from tonsor.kernels.unpacked import unpack

NAME = "tonsor::convolve"


@torch.library.custom_op(NAME, mutates_args=())
def packed_convolution(
    x: Tensor, packed: Tensor, residual: Tensor | None, geometry: Sequence[int], relu: bool
) -> Tensor:  # fmt: skip
    """Convolve by packed weights; `geometry` is that of `numbers`."""
    return run(packed, x, Geometry.of(geometry), residual, relu=relu)


@packed_convolution.register_fake
def _shape(
    x: Tensor, packed: Tensor, residual: Tensor | None, geometry: Sequence[int], relu: bool
) -> Tensor:  # fmt: skip
    shape = Geometry.of(geometry)
    high, wide = shape.out_size((x.shape[2], x.shape[3]))
    if x.shape[1] != shape.in_channels or high < 1 or wide < 1:
        raise EngineError(misfit(x, shape))
    sizes = (x.shape[0], shape.out_channels, high, wide)
    return torch.empty(sizes, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def run(
    packed: Tensor, x: Tensor, geometry: Geometry, residual: Tensor | None = None, *,
    relu: bool = False,
) -> Tensor:  # fmt: skip
    """Convolve by a kernel; by torch where there is none, or where a gradient is asked for."""
    if by_kernel(x, residual):
        return convolve(packed, x, geometry, residual, relu=relu)
    # As a kernel does, it sums in float32 at least, and rounds once.
    weight, bias = (
        t.to(x.device, torch.promote_types(x.dtype, torch.float32)) for t in unpack(packed)
    )
    top, bottom, left, right = geometry.padding
    padded = F.pad(x.to(weight.dtype), (left, right, top, bottom))
    out = F.conv2d(padded, weight, bias, geometry.stride, 0, geometry.dilation, geometry.groups)
    if residual is not None:
        out = out + residual
    out = F.relu(out) if relu else out
    return out.to(x.dtype).contiguous(memory_format=torch.channels_last)


def by_kernel(x: Tensor, residual: Tensor | None = None) -> bool:
    """Whether a kernel can run on an input: it can't where a gradient is to flow back."""
    if torch.is_grad_enabled() and (
        x.requires_grad or (residual is not None and residual.requires_grad)
    ):
        return False
    return x.is_cpu and x.dtype in DTYPES and library() is not None
