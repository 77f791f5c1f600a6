"""Compiled kernels as a way to run a layer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.deploy.layers import FusedConv, pads_of
from tonsor.kernels import ops
from tonsor.kernels.again import Again
from tonsor.kernels.convolve import DTYPES
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import library
from tonsor.kernels.packed import MOST_KERNEL, Form, pack
from tonsor.surgery.fibre_conv import FibreConv, watched

_SIZES = 8  # of inputs that are remembered
_FEW = 16  # pixels of the output, of all images; up to so many, `dots` may be faster


class KernelConv(nn.Module):
    """Runs a layer by a compiled kernel, from weights that were packed for it.

    The packed weights are the same on all machines, so copies and files hold them. In a program
    that is exported or compiled it is one operator, `torch.ops.tonsor.convolve`.
    """

    packed: Tensor

    def __init__(self, fused: FusedConv, form: Form) -> None:
        super().__init__()
        conv = fused.conv
        self.form: Form = form
        self.relu = fused.relu
        pads = pads_of(conv)
        mode = str(conv.padding_mode)
        zeros = mode == "zeros"
        # What is no zero is added before.
        flat = [n for pair in reversed(pads) for n in pair]
        self.before = () if zeros or not any(flat) else tuple(flat)
        self.mode = mode
        (top, bottom), (left, right) = pads if zeros else ((0, 0), (0, 0))
        self.geometry = Geometry(
            conv.in_channels, conv.out_channels, _two(conv.kernel_size), _two(conv.stride),
            (top, bottom, left, right), _two(conv.dilation), conv.groups,
        )  # fmt: skip
        weight, mask = conv.weight, None
        kind = conv.kind if isinstance(conv, FibreConv) else None
        if isinstance(conv, FibreConv):
            weight = conv.dense_weight()
            mask = conv.kept.detach().cpu().numpy().reshape(len(conv.kept), -1)
        self._again: dict[torch.Size, Again] = {}
        self.register_buffer("packed", pack(weight, conv.bias, self.geometry, form, kind, mask))

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        if self.before:
            x = F.pad(x, self.before, self.mode)
        if watched() or type(x) is not Tensor:  # such as one that has a shape and no numbers
            return torch.ops.tonsor.convolve(
                x, self.packed, residual, self.geometry.numbers, self.relu
            )
        again = self._again.get(x.shape)
        if again is not None and again.fits(self._buffers["packed"], x, residual):
            return again(x, residual)
        out = ops.run(self.packed, x, self.geometry, residual, relu=self.relu)
        self._remember(x, residual)
        return out

    @property
    def is_whole(self) -> bool:
        """Whether the kernel does all of it, and nothing is added to the input before."""
        packed = self.packed
        return not self.before and packed.is_contiguous() and packed.data_ptr() % 8 == 0

    def _remember(self, x: Tensor, residual: Tensor | None) -> None:
        """Have the next call on such an input go without what this one had to look at."""
        packed = self.packed
        if ops.by_kernel(x, residual) and packed.is_contiguous() and packed.data_ptr() % 8 == 0:
            if len(self._again) >= _SIZES:
                self._again.clear()
            self._again[x.shape] = Again(packed, x, self.geometry, relu=self.relu)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_again": {}}

    def extra_repr(self) -> str:
        """Say what it is."""
        shape = self.geometry
        text = f"{shape.in_channels}, {shape.out_channels}, {shape.kernel}, form={self.form}"
        return f"{text}, relu" if self.relu else text

    def _apply(self, fn: Any, recurse: bool = True) -> KernelConv:
        # Bytes are moved, but never converted.
        super()._apply(fn, recurse)
        self._again = {}
        return self


def kernel_ways(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    """Return what may run a layer by a compiled kernel: nothing where there is none.

    Which of several forms is faster depends on the layer and on the processor, so all that may be
    are to be timed.
    """
    if x.dtype not in DTYPES or library() is None:
        return {}
    return {form: KernelConv(fused, form) for form in forms_for(fused.conv, x)}


def forms_for(conv: Any, x: Tensor) -> list[Form]:
    """Say in which forms a layer may be packed to be fast on this input.

    As panels, stripes are whole where a neighbour has them, which pays where there are few inputs
    or neighbours are alike.
    """
    if not isinstance(conv, FibreConv) or conv.kind == "columns":
        return ["panels"]
    forms: list[Form] = ["panels"]
    if max(conv.kernel_size) <= MOST_KERNEL:
        forms.insert(0, "stripes")
    pads, sizes = pads_of(conv), x.shape[2:]
    pixels = x.shape[0]
    for n, pad, k, s, d in zip(
        sizes, pads, conv.kernel_size, conv.stride, conv.dilation, strict=True
    ):
        pixels *= (n + sum(pad) - d * (k - 1) - 1) // s + 1
    if pixels <= _FEW:
        forms.append("dots")
    return forms


def _two(numbers: Any) -> tuple[int, int]:
    first, second = numbers
    return int(first), int(second)
