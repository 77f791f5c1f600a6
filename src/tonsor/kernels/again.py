"""A kernel's call that is made again and again, on inputs of one size.

Small layers take a few microseconds, and checking what is given would take as long again. So what
does not change is checked and written down once.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.convolve import WRONG
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import library

_LAST = torch.channels_last


class Fixed(ctypes.Structure):
    """What a kernel has to know of a call beside its tensors."""

    _fields_ = (
        ("packed", ctypes.c_void_p), ("sizes", ctypes.c_int64 * 9),
        *((name, ctypes.c_int64) for name in (
            "batch", "height", "width", "out_height", "out_width", "top", "left",
        )),
        ("relu", ctypes.c_int), ("half", ctypes.c_int),
    )  # fmt: skip


def made_of(shape: torch.Size, geometry: Geometry) -> torch.Size:
    """Return the shape of what is made of an input of a shape."""
    high, wide = geometry.out_size((shape[2], shape[3]))
    return torch.Size((shape[0], geometry.out_channels, high, wide))


def last_steps(shape: torch.Size) -> tuple[int, int, int, int]:
    """Return the strides of images whose channels are last."""
    _, channels, high, wide = shape
    return channels * high * wide, 1, channels * wide, channels


def fixed(
    packed: Tensor, shape: torch.Size, kind: torch.dtype, geometry: Geometry, *, relu: bool
) -> Fixed:  # fmt: skip
    """Write down what does not change for inputs of a shape and kind."""
    batch, _, height, width = shape
    high, wide = geometry.out_size((height, width))
    top, _, left, _ = geometry.padding
    numbers = geometry.numbers
    sizes = (*numbers[:2], numbers[-1], *numbers[2:6], *numbers[10:12])  # without the padding
    return Fixed(
        packed.data_ptr(), sizes, batch, height, width, high, wide, top, left, relu,
        kind is torch.bfloat16,
    )  # fmt: skip


class Again:
    """Convolves as `convolve` did with the same packed weights and a like input.

    It is for who has called `convolve` once, so that nothing is wrong with the weights and sizes,
    and who holds the weights for as long as this is used.
    """

    __slots__ = ("_at", "_call", "_dtype", "_fixed", "_held", "_shape", "_steps", "_where")

    def __init__(self, packed: Tensor, x: Tensor, geometry: Geometry, *, relu: bool) -> None:
        found: Any = library()
        self._call = found.tonsor_again
        self._call.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_int]
        self._call.restype = ctypes.c_int
        self._held, self._at, self._dtype = packed, packed.data_ptr(), x.dtype
        self._shape = made_of(x.shape, geometry)
        self._steps = last_steps(self._shape)
        self._fixed = fixed(packed, x.shape, x.dtype, geometry, relu=relu)
        self._where = ctypes.addressof(self._fixed)

    def fits(self, packed: Tensor | None, x: Tensor, residual: Tensor | None) -> bool:
        """Whether these weights are its own, and the others plain tensors of its kind and size.

        The shape of `x` is left to whoever keeps one of these for each.
        """
        kind = self._dtype
        if packed is not self._held or type(x) is not Tensor:
            return False
        if x.dtype is not kind or not x.is_cpu or (x.requires_grad and torch.is_grad_enabled()):
            return False
        if self._held.data_ptr() != self._at:  # moved, as tensors are that go to another process
            return False
        return residual is None or (
            type(residual) is Tensor and residual.dtype is kind and residual.is_cpu
            and residual.shape == self._shape
            and not (residual.requires_grad and torch.is_grad_enabled())
        )  # fmt: skip

    def __call__(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Convolve."""
        if not x.is_contiguous(memory_format=_LAST):
            x = x.contiguous(memory_format=_LAST)
        out = x.new_empty_strided(self._shape, self._steps)  # there may be another default device
        added = None
        if residual is not None:
            if not residual.is_contiguous(memory_format=_LAST):
                residual = residual.contiguous(memory_format=_LAST)
            added = residual.data_ptr()
        wrong = self._call(
            self._where, x.data_ptr(), added, out.data_ptr(), torch.get_num_threads()
        )
        if wrong:
            raise EngineError(WRONG[wrong])
        return out
