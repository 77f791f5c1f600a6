"""The ways in which a fused convolution may run; which of them is fastest is measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.deploy.gpu_conv import gpu_ways
from tonsor.deploy.kernel_conv import kernel_ways
from tonsor.deploy.layers import FusedConv, channels_last, pads_of
from tonsor.surgery.fibre_conv import FibreConv, taken_down

Ways: TypeAlias = Callable[[FusedConv, Tensor], dict[str, nn.Module]]
"""From a fused convolution and what it is given to what may run it, by name; perhaps nothing."""

# What inductor runs too; private to torch, so it may be missing.
_PACK: Any = getattr(torch.ops.mkldnn, "_reorder_convolution_weight", None)
_POINTWISE: Any = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
_PACKED: Any = None if _POINTWISE is None else _POINTWISE.default
_PACKED_ADD: Any = None if _POINTWISE is None else _POINTWISE.binary


class Dense(nn.Module):
    """The whole weight, with zeros where there is nothing; images have their channels last."""

    def __init__(self, fused: FusedConv) -> None:
        super().__init__()
        conv = fused.conv
        weight = conv.dense_weight() if isinstance(conv, FibreConv) else conv.weight
        self.weight: Tensor
        weight = (
            channels_last(weight.detach()) if weight.dim() == 4 else weight.detach().contiguous()
        )
        self.register_buffer("weight", weight)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach())
        self.relu = fused.relu
        self.stride, self.dilation = tuple(conv.stride), tuple(conv.dilation)
        self.groups = int(conv.groups)
        pads, mode = pads_of(conv), str(conv.padding_mode)
        even = mode == "zeros" and all(before == behind for before, behind in pads)
        self.padding = tuple(before if even else 0 for before, _ in pads)
        # What a convolution can't add itself is added before it.
        flat = [] if even else [n for pair in reversed(pads) for n in pair]
        self.mode = "constant" if mode == "zeros" else mode
        self.before = tuple(flat) if any(flat) else ()

    def padded(self, x: Tensor) -> Tensor:
        """Add what the convolution does not add itself."""
        return channels_last(F.pad(x, self.before, self.mode) if self.before else x)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[self.weight.dim() - 3]
        out = convolve(
            self.padded(x), self.weight, self.bias, self.stride, self.padding, self.dilation,
            self.groups,
        )  # fmt: skip
        if residual is not None:
            out = out.add_(residual)
        return out.relu_() if self.relu else out


class Prepacked(nn.Module):
    """The whole weight as oneDNN wants it, laid so once, with what follows done in the same call.

    The packed weight is no part of it: copies and files are without, and pack when they first run.
    """

    def __init__(self, fused: FusedConv) -> None:
        super().__init__()
        self.dense = Dense(fused)
        self._packed: Tensor | None = None

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        if taken_down() or x.device.type != "cpu":
            return self.dense(x, residual)
        dense = self.dense
        x = dense.padded(x)
        if self._packed is None:
            self._packed = _PACK(
                dense.weight, dense.padding, dense.stride, dense.dilation, dense.groups,
                list(x.shape),
            )  # fmt: skip
        geometry = (dense.padding, dense.stride, dense.dilation, dense.groups)
        relu = "relu" if dense.relu else None
        if residual is None:
            return _PACKED(x, self._packed, dense.bias, *geometry, relu or "none", [], "")
        return _PACKED_ADD(
            x,
            channels_last(residual),
            self._packed,
            dense.bias,
            *geometry,
            "add",
            1.0,
            relu,
            [],
            None,
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_packed": None}

    def _apply(self, fn: Any, recurse: bool = True) -> Prepacked:
        self._packed = None
        return super()._apply(fn, recurse)


class ByFibres(nn.Module):
    """The fibres that there are, by ordinary operators."""

    def __init__(self, fused: FusedConv) -> None:
        super().__init__()
        self.conv = copy.deepcopy(fused.conv)
        self.conv.run = self.conv.kind
        self.relu = fused.relu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        out = self.conv(x.contiguous())
        if residual is not None:
            out = out + residual
        return channels_last(F.relu(out) if self.relu else out)


def _dense(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    return {"dense": Dense(fused)}


def _prepacked(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    there = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if not there or _PACK is None or _POINTWISE is None or not _images(fused, x):
        return {}
    # Without instructions for it, bfloat16 would be slower than slow.
    low = x.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return {"prepacked": Prepacked(fused)} if low or x.dtype == torch.float32 else {}


def _torch(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    if not isinstance(fused.conv, FibreConv) or fused.conv.groups > 1:
        return {}
    return {"torch": ByFibres(fused)}


def _kernel(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    if not _images(fused, x):
        return {}
    return {f"kernel/{form}": way for form, way in kernel_ways(fused, x).items()}


def _triton(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    return {f"triton/{laid}": way for laid, way in gpu_ways(fused, x).items()}


def _images(fused: FusedConv, x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dim() == 4 and fused.rank == 2


WAYS: Mapping[str, Ways] = MappingProxyType(
    {
        "dense": _dense, "prepacked": _prepacked, "torch": _torch, "kernel": _kernel,
        "triton": _triton,
    }
)  # fmt: skip
