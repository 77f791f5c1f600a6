"""Many kernels in a row as one call, whose intermediate results share one piece of memory.

Between two small layers, Python takes as long as a layer does. And large results of each layer
would be fetched from the system and given back each time, page by page.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.again import Fixed, fixed, last_steps, made_of
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import library

_LAST = torch.channels_last
_MISSING = -(2**63)
_LINE = 64  # bytes; where results start


@dataclass(frozen=True, slots=True)
class Link:
    """One kernel of a chain: which values it reads, by number. It makes the next value.

    The first values are those that the chain is given.
    """

    packed: Tensor
    geometry: Geometry
    relu: bool
    x: int
    residual: int | None = None


class _Step(ctypes.Structure):
    _fields_ = (
        ("fixed", Fixed), ("x", ctypes.c_int64), ("residual", ctypes.c_int64),
        ("out", ctypes.c_int64),
    )  # fmt: skip


class _Shared(threading.local):
    """The memory of each thread for what is between kernels; it is as large as was ever needed."""

    held: Tensor | None = None

    def of(self, size: int) -> Tensor:
        held = self.held
        if held is None or held.numel() < size:
            held = self.held = torch.empty(size, dtype=torch.uint8)
        return held


_shared = _Shared()


class Chain:
    """Runs links one after the other on inputs of certain shapes and one kind.

    It is for who has run each kernel by itself on such inputs, so that nothing is wrong with the
    weights and sizes.
    """

    def __init__(
        self, links: Sequence[Link], given: Sequence[Tensor], outputs: Sequence[int]
    ) -> None:  # fmt: skip
        self._call = _function()
        self._held = [link.packed for link in links]
        self.kind = given[0].dtype
        shapes = [x.shape for x in given]
        for link in links:
            shapes.append(made_of(shapes[link.x], link.geometry))
            added = None if link.residual is None else shapes[link.residual]
            if shapes[link.x][1] != link.geometry.in_channels or added not in (None, shapes[-1]):
                message = f"the links of a chain do not fit: {link.geometry} after {shapes[:-1]}"
                raise EngineError(message)
        self.shapes = tuple(shapes[: len(given)])
        places, self._size = _placed(links, len(given), outputs, shapes, self.kind.itemsize)
        self._made = [(shapes[n], last_steps(shapes[n])) for n in outputs]
        self._steps = (_Step * len(links))()
        for index, link in enumerate(links):
            self._steps[index] = _Step(
                fixed(link.packed, shapes[link.x], self.kind, link.geometry, relu=link.relu),
                places[link.x], _MISSING if link.residual is None else places[link.residual],
                places[len(given) + index],
            )  # fmt: skip
        self._where, self._count = ctypes.addressof(self._steps), len(links)
        self._pointers = ctypes.c_void_p * (len(given) + len(outputs))

    def fits(self, given: Sequence[Tensor]) -> bool:
        """Whether these are plain tensors of its kind; their shapes are for others to compare."""
        kind = self.kind
        return all(type(x) is Tensor and x.dtype is kind and x.is_cpu for x in given)

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run all, and return the outputs."""
        laid = [
            x if x.is_contiguous(memory_format=_LAST) else x.contiguous(memory_format=_LAST)
            for x in given
        ]
        made = [torch.empty_strided(*of, dtype=self.kind) for of in self._made]
        pointers = self._pointers(*[x.data_ptr() for x in (*laid, *made)])
        shared = _shared.of(self._size)
        wrong = self._call(
            self._where, self._count, shared.data_ptr(), pointers, torch.get_num_threads()
        )
        if wrong:
            message = f"a kernel of a chain failed ({wrong}); deploy the model anew"
            raise EngineError(message)
        return made


def _placed(
    links: Sequence[Link], given: int, outputs: Sequence[int], shapes: Sequence[torch.Size],
    width: int,
) -> tuple[list[int], int]:  # fmt: skip
    """Say where each value lies, and how much memory they share.

    Two values that are needed at the same time never overlap; what a kernel reads is needed until
    it is done.
    """
    last = {n: n for n in range(len(shapes))}
    for index, link in enumerate(links):
        for read in (link.x, link.residual):
            if read is not None:
                last[read] = given + index
    places = [-1 - n for n in range(given)]
    alive: list[tuple[int, int, int]] = []  # start, end, and until when
    size = 0
    for number in range(given, len(shapes)):
        if number in outputs:
            places.append(-1 - given - list(outputs).index(number))
            continue
        alive = sorted(a for a in alive if a[2] >= number)
        wanted = math.ceil(max(1, shapes[number].numel() * width) / _LINE) * _LINE
        start = 0
        for begin, end, _ in alive:
            if begin - start >= wanted:
                break
            start = max(start, end)
        alive.append((start, start + wanted, last[number]))
        places.append(start)
        size = max(size, start + wanted)
    return places, size


def _function() -> Any:
    found: Any = library()
    if found is None:
        message = "there are no compiled kernels here; `tonsor doctor` says why"
        raise EngineError(message)
    call = found.tonsor_chain
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    call.argtypes = [pointer, number, pointer, pointer, ctypes.c_int]
    call.restype = ctypes.c_int
    return call
