"""Many kernels in a row as one call, whose intermediate results share one piece of memory.

Between two small layers, Python takes as long as a layer does. And large results of each layer
would be fetched from the system and given back each time, page by page.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.again import Fixed, fixed, last_steps, made_of
from tonsor.kernels.convolve import DTYPES, WRONG
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


class _Holder:
    """What one thread holds."""

    __slots__ = ("__weakref__", "held")

    def __init__(self) -> None:
        self.held: Tensor | None = None


_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()
_lock = threading.Lock()


class _Shared(threading.local):
    """The memory of each thread for what is between kernels; it is as large as was ever needed.

    Nothing is in it between two calls, and no Python runs in the thread during one, so that one
    piece will do for all chains of a thread.
    """

    def __init__(self) -> None:
        self._holder = _Holder()
        with _lock:
            _holders.add(self._holder)

    def of(self, size: int) -> Tensor:
        holder = self._holder
        held = holder.held
        if held is None or held.numel() < size:
            held = holder.held = torch.empty(size, dtype=torch.uint8, device="cpu")
        return held


_shared = _Shared()


def release() -> None:
    """Give back the memory that all threads hold for chains; later calls ask for it again.

    A chain that runs meanwhile keeps its memory until it is done.
    """
    with _lock:
        for holder in _holders:
            holder.held = None


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
        shapes = _shapes(links, given, outputs)
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
        """Whether these are plain tensors of its kind, to which no gradient is to flow back.

        Their shapes are for others to compare.
        """
        kind = self.kind
        for x in given:
            if type(x) is not Tensor or x.dtype is not kind or not x.is_cpu:
                return False
            if x.requires_grad and torch.is_grad_enabled():
                return False
        return True

    def __call__(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run all, and return the outputs."""
        laid = [
            x if x.is_contiguous(memory_format=_LAST) else x.contiguous(memory_format=_LAST)
            for x in given
        ]
        new = given[0].new_empty_strided  # there may be another default device
        made = [new(*of) for of in self._made]
        pointers = self._pointers(*[x.data_ptr() for x in (*laid, *made)])
        shared = _shared.of(self._size)
        wrong = self._call(
            self._where, self._count, shared.data_ptr(), pointers, torch.get_num_threads()
        )
        if wrong:
            message = f"a kernel of a chain failed: {WRONG[wrong]}"
            raise EngineError(message)
        return made


def _shapes(
    links: Sequence[Link], given: Sequence[Tensor], outputs: Sequence[int]
) -> list[torch.Size]:
    """Return the shapes of all values, or say why these links are no chain."""
    if any(x.dtype is not given[0].dtype or x.dtype not in DTYPES or x.dim() != 4 for x in given):
        told = [f"{tuple(x.shape)}, {x.dtype}" for x in given]
        message = f"a chain takes images, all in float32 or all in bfloat16; these are {told}"
        raise EngineError(message)
    shapes = [x.shape for x in given]
    for link in links:
        reads = (link.x,) if link.residual is None else (link.x, link.residual)
        if not all(0 <= n < len(shapes) for n in reads):
            message = (
                f"a link of a chain reads the values {reads}, and there are {len(shapes)} before "
                "it; have it read those"
            )
            raise EngineError(message)
        made = made_of(shapes[link.x], link.geometry)
        alike = link.residual is None or shapes[link.residual] == made
        if shapes[link.x][1] != link.geometry.in_channels or min(made[2:]) < 1 or not alike:
            message = (
                f"a link of a chain, {link.geometry}, does not fit what it reads, "
                f"{[tuple(shapes[n]) for n in reads]}; give it what it was made for"
            )
            raise EngineError(message)
        shapes.append(made)
    own = range(len(given), len(shapes))
    if len({*outputs}) < len(outputs) or not all(n in own for n in outputs):
        message = (
            f"the outputs of a chain, {list(outputs)}, are to be values that it makes, "
            f"{own.start} to {own.stop - 1}, each once; name such"
        )
        raise EngineError(message)
    return shapes


def _placed(
    links: Sequence[Link], given: int, outputs: Sequence[int], shapes: Sequence[torch.Size],
    width: int,
) -> tuple[list[int], int]:  # fmt: skip
    """Say where each value lies, and how much memory they share.

    Two values that are needed at the same time never overlap. What a kernel reads is needed until
    it is done: it may read a residual again after it has written there, so a sum is never written
    over what it is added to.
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
