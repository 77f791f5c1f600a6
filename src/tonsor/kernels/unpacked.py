"""Read packed weights back, to run where there is no kernel, and to check what was packed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.packed import FORMS, HEAD, MAGIC, PANEL, TEAM, VERSION

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def unpack(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weight `[filter, input, *kernel]`, with zeros where nothing stayed, and the bias.

    >>> from tonsor.kernels.geometry import Geometry
    >>> from tonsor.kernels.packed import pack
    >>> weight = torch.randn(20, 3, 5, 5)
    >>> for form in FORMS:
    ...     again, bias = unpack(pack(weight, None, Geometry(3, 20, (5, 5)), form))
    ...     print(form, torch.equal(again, weight), bias.any().item())
    stripes True False
    panels True False
    dots True False
    """
    raw = packed.detach().cpu().numpy()
    head = _read(raw, 0, HEAD, np.int64).tolist() if len(raw) >= HEAD * 8 else [0] * HEAD
    known = head[0] == MAGIC and head[1] == VERSION and head[2] in range(len(FORMS))
    if not known or head[3] > len(raw):
        message = "these are no weights that this version of tonsor packed; pack them anew"
        raise EngineError(message)
    _, _, form, _, in_channels, filters, groups, high, wide = head[:9]
    inputs = in_channels // groups
    weight = np.zeros((filters, inputs, high * wide), np.float32)
    parts = _read(raw, head[14], 3 * groups, np.int64).reshape(groups, 3).tolist()
    for group, (count, first, _) in enumerate(parts):
        rows = slice(group * (filters // groups), (group + 1) * (filters // groups))
        _READ[FORMS[form]](raw, count, first, weight[rows], rows.start, wide)
    bias = _read(raw, head[13], filters, np.float32).copy()
    return torch.from_numpy(weight.reshape(filters, inputs, high, wide)), torch.from_numpy(bias)


def _read(raw: Bytes, start: int, count: int, kind: Any) -> Any:
    return np.frombuffer(raw, kind, count, start)


def _stripes(
    raw: Bytes, count: int, first: int, weight: Any, _: int, __: int
) -> None:  # fmt: skip
    for record in _read(raw, first, 6 * count, np.int64).reshape(-1, 6).tolist():
        position, low, inputs, filters, which, weights = record
        values = _read(raw, weights, inputs * filters, np.float32)
        teams = math.ceil(filters / TEAM)
        bounds = [filters * t // teams for t in range(teams + 1)]
        for start, stop in pairwise(bounds):
            team = values[start * inputs : stop * inputs].reshape(inputs, stop - start)
            rows = _read(raw, which, filters, np.int32)[start:stop]
            weight[rows, low : low + inputs, position] = team.T


def _panels(
    raw: Bytes, count: int, first: int, weight: Any, start: int, wide: int
) -> None:  # fmt: skip
    for record in _read(raw, first, 5 * count, np.int64).reshape(-1, 5).tolist():
        filter_, filters, taps, rows, weights = record
        panels = math.ceil(filters / PANEL)
        values = _read(raw, weights, panels * taps * PANEL, np.float32)
        values = values.reshape(panels, taps, PANEL).swapaxes(1, 2).reshape(panels * PANEL, taps)
        channel, high, side = _read(raw, rows, 3 * taps, np.int32).reshape(taps, 3).T
        ours = slice(filter_ - start, filter_ - start + filters)
        weight[ours, channel, high * wide + side] = values[:filters]


def _dots(raw: Bytes, count: int, first: int, weight: Any, _: int, __: int) -> None:
    inputs = weight.shape[1]
    records = _read(raw, first, 3 * count, np.int64).reshape(-1, 3).tolist()
    for filter_, (stripes, positions, weights) in enumerate(records):
        values = _read(raw, weights, stripes * inputs, np.float32).reshape(stripes, inputs)
        weight[filter_, :, _read(raw, positions, stripes, np.int32)] = values


_READ = {"stripes": _stripes, "panels": _panels, "dots": _dots}
