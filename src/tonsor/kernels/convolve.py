"""Call a compiled kernel on tensors."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import library
from tonsor.kernels.packed import HEAD, MAGIC, VERSION

DTYPES = (torch.float32, torch.bfloat16)

_LAST = torch.channels_last
WRONG = {
    1: "these are no packed weights, or not all of them; pack them anew",
    2: "these weights were packed by another version of tonsor; pack them anew",
    3: "there is not enough memory for a kernel to work in; give fewer or smaller images at a time",
    4: "these weights were packed for another convolution; pack them for this one",
    5: "rows of so many numbers are too long for the form 'panels'; pack the weights as 'dots'",
    6: "a tensor has a shape and no numbers, as fake ones do; give tensors that have numbers",
}
_LEAST = 8 * HEAD  # bytes
_Head = ctypes.c_int64 * 13  # those that say sizes
_known: tuple[ctypes.CDLL, Any] | None = None


def convolve(
    packed: Tensor, x: Tensor, geometry: Geometry, residual: Tensor | None = None, *,
    relu: bool = False,
) -> Tensor:  # fmt: skip
    """Convolve images with packed weights, add a residual if there is one, cut below zero if asked.

    Inputs and outputs are float32 or bfloat16, and lie channels last. Any number of threads may
    call it at the same time; each call uses as many of torch's as torch is set to.
    """
    call = _call()
    if call is None:
        message = "there are no compiled kernels here; `tonsor doctor` says why"
        raise EngineError(message)
    if x.dim() != 4 or not x.is_cpu or x.dtype not in DTYPES:
        raise EngineError(misfit(x, geometry))
    batch, channels, height, width = x.shape
    high, wide = geometry.out_size((height, width))
    if channels != geometry.in_channels or high < 1 or wide < 1:
        raise EngineError(misfit(x, geometry))
    packed = _checked(packed, geometry)
    x = x.contiguous(memory_format=_LAST)
    shape = (batch, geometry.out_channels, high, wide)
    # Memory of its own: a kernel may read the others again after it has written.
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)
    added = None
    if residual is not None:
        if residual.shape != shape or residual.dtype != x.dtype or not residual.is_cpu:
            message = (
                f"a residual of {_told(residual)} can't be added to {shape}, {x.dtype}, "
                f"{x.device.type}; give one of that kind"
            )
            raise EngineError(message)
        residual = residual.contiguous(memory_format=_LAST)
        added = residual.data_ptr()
    wrong = call(
        packed.data_ptr(), x.data_ptr(), added, out.data_ptr(), batch, height, width, high, wide,
        geometry.padding[0], geometry.padding[2], relu, x.dtype == torch.bfloat16,
        torch.get_num_threads(),
    )  # fmt: skip
    if wrong:
        raise EngineError(WRONG[wrong])
    return out


def _call() -> Any:
    """Return the function of the library, with its arguments said once."""
    global _known
    found = library()
    if found is None:
        return None
    if _known is None or _known[0] is not found:
        call = found.tonsor_convolve
        pointer, number, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        call.argtypes = [*[pointer] * 4, *[number] * 7, *[flag] * 3]
        call.restype = flag
        _known = (found, call)
    return _known[1]


def _checked(packed: Tensor, geometry: Geometry) -> Tensor:
    """Return packed weights that a kernel can read, or say why these are none.

    The kernel trusts them: what it took for sizes would lead it anywhere.
    """
    if packed.dtype is not torch.uint8 or not packed.is_cpu or packed.numel() < _LEAST:
        raise EngineError(WRONG[1])
    if packed.data_ptr() % 8 or not packed.is_contiguous():  # a part of something else
        packed = packed.clone(memory_format=torch.contiguous_format)
    magic, version, _, size, *sizes = _Head.from_address(packed.data_ptr())[:]
    if magic != MAGIC or (version == VERSION and size > packed.numel()):
        raise EngineError(WRONG[1])
    if version != VERSION:
        raise EngineError(WRONG[2])
    g = geometry
    if sizes != [g.in_channels, g.out_channels, g.groups, *g.kernel, *g.stride, *g.dilation]:
        message = f"these weights were packed for another convolution than {g}; pack them for it"
        raise EngineError(message)
    return packed


def misfit(x: Tensor, geometry: Geometry) -> str:
    """Say that an input can't be convolved."""
    return (
        f"a kernel for {geometry.in_channels} channels with a window of {geometry.kernel} can't "
        f"convolve {_told(x)}; it takes images on the processor, in float32 or bfloat16, that are "
        "no smaller than the window"
    )


def _told(x: Tensor) -> str:
    return f"{tuple(x.shape)}, {x.dtype}, {x.device.type}"
