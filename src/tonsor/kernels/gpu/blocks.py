"""Weights in blocks of filters that share one list of what they read: what the GPU kernel takes.

Tensor cores multiply tiles. Filters are therefore taken in blocks of 16 to 128, and each block has
one list of taps, which are an input and a position of the kernel: columns have the same list in all
blocks, stripes that of the filters that lie together (see `clusters`), a dense weight that of all.

A list is cut into chunks of `step` taps. In a *run*, a chunk is `step` channels at one position, so
that one entry says it all, and in channels_last neighbours in memory are read together; stripes and
dense weights are that. Otherwise there is an entry for each tap, which may be anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.errors import SurgeryError
from tonsor.fibres import FibreMask, rows_of
from tonsor.kernels.gpu.lists import Chunks, Form, Lists, chunks_of, lists_of, taps_of
from tonsor.kernels.gpu.window import Pair, Window

BLOCKS = (16, 32, 64, 128)
STEPS = (64, 32, 16)
_WASTE = 1.25  # a run may be filled up to so many times its channels
_LOAD = 16  # reading the input costs a block about as much as so many filters more


@dataclass(frozen=True, slots=True)
class Packed:
    """A blocked weight on its device, and all that the kernel has to know of its layer.

    `weight` is `[tap, place in the block]`. `table` has, for each chunk of a run or for each tap,
    the first channel, the offsets of row and column, and how many channels there are. `starts` are
    chunks. `filters` says where the results of a block go, -1 for nowhere. `executed` is the share
    of the dense multiplications that are done, all filling up counted. The kernel is leaner where
    all chunks are `full` and `aligned`, and filters are `ordered`.
    """

    weight: Tensor
    table: Tensor
    starts: Tensor
    filters: Tensor
    window: Window
    kernel: Pair
    inputs: int
    outputs: int
    step: int
    runs: bool
    full: bool
    aligned: bool
    ordered: bool
    executed: float

    @property
    def block(self) -> int:
        """How many filters are in a block."""
        return self.filters.shape[1]

    def to(self, device: torch.device | str) -> Packed:
        """Return the same on another device."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {n: t.to(device) for n, t in held.items() if isinstance(t, Tensor)}
        return replace(self, **moved)


def pack(
    weight: Tensor,
    mask: FibreMask | None = None,
    kind: Form = "dense",
    *,
    window: Window | None = None,
    groups: int = 1,
    block: int = 0,
    step: int = 0,
    runs: bool | None = None,
) -> Packed:
    """Lay out a weight `[filter, input, row, column]`, of which the fibres of a mask stay.

    `block`, `step` and `runs` are chosen by what they would waste, unless they are given.

    >>> one, none = [True, True, True] + [False] * 6, [False] * 9
    >>> packed = pack(torch.ones(64, 64, 3, 3), np.array([one] * 32 + [none] * 32), "stripes")
    >>> packed.block, packed.runs, packed.starts.tolist(), round(packed.executed, 3)
    (32, True, [0, 3, 3], 0.167)
    """
    _check(weight, mask, kind, groups, block, step)
    outputs, inputs, *sides = weight.shape
    kernel, positions = (sides[0], sides[1]), sides[0] * sides[1]
    if mask is None:
        mask = np.ones((outputs, positions), dtype=np.bool_)
    runs = _may_run(kind, inputs) if runs is None else runs and kind != "columns"
    step = step or _step(int(mask.sum()) // groups if kind == "columns" else inputs, runs)
    lists, chunks = min(
        (
            (lists, chunks_of(lists, step, runs))
            for b in ([block] if block else BLOCKS)
            for lists in [lists_of(mask, kind, outputs, inputs, groups, b)]
        ),
        key=_cost,
    )
    device = weight.device
    window = window or Window()
    filters = torch.from_numpy(lists.filters)
    return Packed(
        weight=_packed(weight.detach(), mask, kind, lists, chunks),
        table=torch.from_numpy(_table(chunks, kernel, window)).to(device),
        starts=torch.from_numpy(chunks.starts).to(device, torch.int32),
        filters=filters.to(device, torch.int32),
        window=window,
        kernel=kernel,
        inputs=inputs * groups,
        outputs=outputs,
        step=step,
        runs=runs,
        full=bool((chunks.live == (step if runs else 1)).all()),
        aligned=runs and not (chunks.channel % 16).any(),
        ordered=filters.reshape(-1)[:outputs].equal(torch.arange(outputs)),
        executed=_work(lists, chunks) / (outputs * inputs * positions),
    )


def _packed(weight: Tensor, mask: FibreMask, kind: Form, lists: Lists, chunks: Chunks) -> Tensor:
    """Return the weights `[tap, place in the block]`."""
    outputs, inputs, *sides = weight.shape
    device = weight.device
    if kind != "columns":  # columns that are gone are in no list
        gone = torch.from_numpy(~mask).view(outputs, 1, *sides)
        weight = weight.masked_fill(gone.to(device), 0)
    # The last filter and the last tap are those that stand for none.
    flat = F.pad(weight.reshape(outputs, -1), (0, 1, 0, 1))
    taps = torch.from_numpy(taps_of(chunks, inputs, sides[0] * sides[1])).to(device)
    blocks = np.repeat(np.arange(len(lists.filters)), np.diff(chunks.starts) * chunks.step)
    filters = torch.from_numpy(lists.filters[blocks]).to(device)
    return flat[filters % (outputs + 1), taps[:, None]].contiguous()


def _table(chunks: Chunks, kernel: Pair, window: Window) -> np.ndarray[Any, Any]:
    """Return what the kernel reads of each entry."""
    row, column = np.divmod(chunks.position, kernel[1])
    down = row * window.dilation[0] - window.padding[0][0]
    right = column * window.dilation[1] - window.padding[1][0]
    return np.stack([chunks.channel, down, right, chunks.live], axis=1).astype(np.int32)


def _may_run(kind: Form, inputs: int) -> bool:
    """Whether chunks of channels waste little."""
    return kind != "columns" and min(_filled(inputs, s) for s in STEPS) <= _WASTE * inputs


def _step(length: int, runs: bool) -> int:
    """Return the longest chunk that wastes little."""
    least = min(_filled(length, s) for s in STEPS)
    some = [s for s in STEPS if _filled(length, s) <= (least if runs else _WASTE * length)]
    return some[0] if some else STEPS[-1]


def _filled(length: int, step: int) -> int:
    return -(-length // step) * step


def _work(lists: Lists, chunks: Chunks) -> int:
    return int(chunks.starts[-1]) * chunks.step * lists.block


def _cost(made: tuple[Lists, Chunks]) -> float:
    lists, chunks = made
    return _work(lists, chunks) * (1 + _LOAD / lists.block)


def _check(
    weight: Tensor, mask: FibreMask | None, kind: Form, groups: int, block: int, step: int
) -> None:
    if weight.dim() != 4 or not weight.numel() or groups < 1 or len(weight) % groups:
        message = (
            f"a weight [filter, input, row, column] of {groups} groups is packed, but its shape is "
            f"{tuple(weight.shape)}; give that of a Conv2d, and its groups"
        )
        raise SurgeryError(message)
    if block not in (0, *BLOCKS) or step not in (0, *STEPS):
        message = (
            f"the kernel has blocks of {BLOCKS} filters and steps of {STEPS}, but block={block} "
            f"and step={step} were given; take one of those, or 0 to have them chosen"
        )
        raise SurgeryError(message)
    if mask is None:
        if kind != "dense":
            message = f"{kind} need a mask that says which of them stay; give mask="
            raise SurgeryError(message)
        return
    if kind == "dense":
        message = "a dense weight has no mask; give kind='stripes' or kind='columns'"
        raise SurgeryError(message)
    rows = len(weight) if kind == "stripes" else weight.shape[1] * groups
    whole = (rows, weight.shape[2] * weight.shape[3])
    if mask.shape != whole:
        message = (
            f"the mask of {rows} {rows_of(kind)} has the shape {whole}, "
            f"[{rows_of(kind)[:-1]}, position], but {mask.shape} was given"
        )
        raise SurgeryError(message)
