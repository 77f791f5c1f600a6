"""Write the weights of a convolution down in the form that a compiled kernel reads.

There are three forms. `stripes` goes along pixels, and each filter may have its own places of the
kernel. `dots` does too, for outputs of a few pixels. `panels` goes along filters, which read the
same taps: columns, stripes that groups of filters share, and whole convolutions. What is written is
one tensor of bytes; `csrc/packed.h` says how it is laid out. It is the same on all machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.fibres import FibreMask, Kind
from tonsor.kernels.geometry import Geometry

Form = Literal["stripes", "panels", "dots"]
Floats = np.ndarray[Any, np.dtype[np.float32]]

MAGIC, VERSION = int.from_bytes(b"tonsor", "little"), 1
FORMS: tuple[Form, ...] = ("stripes", "panels", "dots")
PANEL = 16  # filters side by side
TEAM = 8  # filters, at most, that one pass over the inputs of a stripe serves
INPUTS = 128  # of a stripe at a time, so that what is read of them stays near the processor
MOST_KERNEL = 64  # places of a kernel in one dimension, for `stripes`
HEAD = 15  # numbers that say what is packed


def pack(
    weight: Tensor, bias: Tensor | None, geometry: Geometry, form: Form,
    kind: Kind | None = None, mask: FibreMask | None = None,
) -> Tensor:  # fmt: skip
    """Return the bytes for a weight `[filter, input, *kernel]` of which a mask says what stays.

    The mask is that of stripes or of columns, as `kind` says; without one, everything stays. What
    it leaves out is not read, whatever the weight has there.
    """
    _check(weight, bias, geometry, form, kind, mask)
    array = weight.detach().to("cpu", torch.float32).numpy()
    array = array.reshape(geometry.out_channels, geometry.inputs, geometry.positions)
    stays = _everywhere(geometry, kind, mask)
    writer = _Writer(geometry, form)
    first = np.zeros(geometry.out_channels, np.float32)
    if bias is not None:
        first[:] = bias.detach().to("cpu", torch.float32).numpy()
    writer.head[13] = writer.add(first)
    parts: list[int] = []
    for group in range(geometry.groups):
        rows = slice(group * geometry.filters, (group + 1) * geometry.filters)
        ours = stays[rows] if kind != "columns" else stays[rows, :]
        count, at = _PARTS[form](writer, array[rows], ours, group * geometry.filters)
        parts += [count, at, int(ours.any(axis=1).sum())]
    writer.head[14] = writer.add(np.array(parts, np.int64))
    return writer.close()


def _check(
    weight: Tensor, bias: Tensor | None, geometry: Geometry, form: Form, kind: Kind | None,
    mask: FibreMask | None,
) -> None:  # fmt: skip
    """Refuse what does not fit together, before a kernel reads beyond the end of something."""
    g = geometry
    if form not in FORMS:
        message = f"no kernel reads the form '{form}'; name one of {', '.join(FORMS)}"
        raise EngineError(message)
    if form == "stripes" and max(g.kernel) > MOST_KERNEL:
        message = (
            f"the form 'stripes' takes kernels of {MOST_KERNEL} places at most in a dimension, "
            f"and this one is {g.kernel}; pack it as 'panels' or 'dots'"
        )
        raise EngineError(message)
    shape = (g.out_channels, g.inputs, *g.kernel)
    _fits("a weight", weight.shape, shape)
    if bias is not None:
        _fits("a bias", bias.shape, shape[:1])
    if (kind is None) != (mask is None):
        message = f"a mask and its kind go together, and these are {mask!r} and {kind!r}; give both"
        raise EngineError(message)
    if mask is not None:
        rows = g.out_channels if kind == "stripes" else g.in_channels
        _fits(f"a mask of {kind}", mask.shape, (rows, g.positions))


def _fits(what: str, shape: Iterable[int], wanted: Iterable[int]) -> None:
    if tuple(shape) != tuple(wanted):
        message = f"{what} of the shape {tuple(shape)} can't be packed as {tuple(wanted)}"
        raise EngineError(message)


def _everywhere(geometry: Geometry, kind: Kind | None, mask: FibreMask | None) -> FibreMask:
    """Say for each filter, input of its group and position whether it stays."""
    shape = (geometry.out_channels, geometry.inputs, geometry.positions)
    if kind is None or mask is None:
        return np.ones(shape, np.bool_)
    if kind == "stripes":
        return np.broadcast_to(mask[:, None, :], shape)
    grouped = mask.reshape(geometry.groups, 1, geometry.inputs, geometry.positions)
    full = (geometry.groups, geometry.filters, geometry.inputs, geometry.positions)
    return np.broadcast_to(grouped, full).reshape(shape)


class _Writer:
    """Puts arrays one behind the other, each from a multiple of 64 bytes on."""

    def __init__(self, geometry: Geometry, form: Form) -> None:
        g = geometry
        self.head: list[int] = [
            MAGIC, VERSION, FORMS.index(form), 0, g.in_channels, g.out_channels, g.groups,
            *g.kernel, *g.stride, *g.dilation, 0, 0,
        ]  # fmt: skip
        self._pieces: list[bytes] = []
        self._end = math.ceil(HEAD * 8 / 64) * 64

    def add(self, array: np.ndarray[Any, Any]) -> int:
        """Write an array, and return where it starts."""
        start, raw = self._end, np.ascontiguousarray(array).tobytes()
        padded = math.ceil(len(raw) / 64) * 64
        self._pieces.append(raw.ljust(padded, b"\0"))
        self._end += padded
        return start

    def close(self) -> Tensor:
        # Vectors are read whole, and some reach beyond the last weight.
        self.head[3] = self._end + 256
        head = np.array(self.head, np.int64).tobytes()
        whole = b"".join((head.ljust(math.ceil(len(head) / 64) * 64, b"\0"), *self._pieces))
        read = torch.frombuffer(bytearray(whole.ljust(self.head[3], b"\0")), dtype=torch.uint8)
        return read.clone()  # torch's memory starts where vectors do


def _stripes(
    writer: _Writer, weight: Floats, stays: FibreMask, _: int
) -> tuple[int, int]:  # fmt: skip
    """Write what some inputs, at one position, give to the filters that have it."""
    records: list[int] = []
    kept = np.asarray(stays.any(axis=1))
    for low in range(0, weight.shape[1], INPUTS):
        inputs = slice(low, low + INPUTS)
        for position in np.flatnonzero(kept.any(axis=0)).tolist():
            which = np.flatnonzero(kept[:, position])
            values = np.where(stays[which, inputs, position], weight[which, inputs, position], 0)
            records += [
                position, low, values.shape[1], len(which),
                writer.add(which.astype(np.int32)), writer.add(_in_teams(values.T)),
            ]  # fmt: skip
    return len(records) // 6, writer.add(np.array(records, np.int64))


def _in_teams(values: Floats) -> Floats:
    """Lay `[input, filter]` out team after team, so that each is read from start to end."""
    filters = values.shape[1]
    teams = math.ceil(filters / TEAM)
    bounds = [filters * t // teams for t in range(1, teams)]
    return np.concatenate([t.ravel() for t in np.split(values, bounds, axis=1)]).astype(np.float32)


def _panels(
    writer: _Writer, weight: Floats, stays: FibreMask, first: int
) -> tuple[int, int]:  # fmt: skip
    """Write filters that read the same taps together; taps go position by position."""
    positions = weight.shape[2]
    records: list[int] = []
    for low, high in _alike(stays):
        taps = stays[low:high].any(axis=0)
        position, channel = np.nonzero(taps.T)
        side = _sides(positions, writer)
        rows = np.stack([channel, position // side, position % side], 1)
        values = np.where(stays[low:high], weight[low:high], 0)[:, channel, position]
        panels = math.ceil((high - low) / PANEL)
        whole = np.zeros((panels * PANEL, len(rows)), np.float32)
        whole[: high - low] = values
        whole = whole.reshape(panels, PANEL, len(rows)).swapaxes(1, 2)
        records += [
            first + low, high - low, len(rows), writer.add(rows.astype(np.int32)),
            writer.add(whole),
        ]  # fmt: skip
    return len(records) // 5, writer.add(np.array(records, np.int64))


def _sides(positions: int, writer: _Writer) -> int:
    """How wide the kernel is."""
    return max(1, positions // max(1, writer.head[7]))


def _alike(stays: FibreMask) -> Iterable[tuple[int, int]]:
    """Yield runs of panels whose filters read the same taps."""
    filters = len(stays)
    taps = [stays[low : low + PANEL].any(axis=0) for low in range(0, filters, PANEL)]
    start = 0
    for panel in range(1, len(taps) + 1):
        if panel == len(taps) or (taps[panel] != taps[start]).any():
            yield start * PANEL, min(filters, panel * PANEL)
            start = panel


def _dots(
    writer: _Writer, weight: Floats, stays: FibreMask, _: int
) -> tuple[int, int]:  # fmt: skip
    """Write each filter's stripes one behind the other."""
    kept = stays.any(axis=1)
    filter_of, position = np.nonzero(kept)
    values = np.where(stays, weight, 0)[filter_of, :, position]
    counts = kept.sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    positions = writer.add(position.astype(np.int32))
    weights = writer.add(values.astype(np.float32))
    each = 4 * weight.shape[1]
    records = np.stack([counts, positions + 4 * starts, weights + each * starts], 1)
    return len(counts), writer.add(records.astype(np.int64))


_PARTS = {"stripes": _stripes, "panels": _panels, "dots": _dots}
