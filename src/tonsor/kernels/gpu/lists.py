"""What each block of filters reads: lists of taps, cut into chunks of the same length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tonsor.fibres import FibreMask, Kind
from tonsor.kernels.gpu.clusters import NONE, Indices, in_order, laid_together, unions

Form = Kind | Literal["dense"]


@dataclass(frozen=True, slots=True)
class Lists:
    """Blocks of filters `[block, place]`, and what they read: `[block, input, position]`.

    `owner` says to which group of the convolution a block belongs.
    """

    filters: Indices
    reads: FibreMask
    owner: Indices

    @property
    def block(self) -> int:
        """How many filters are in a block."""
        return self.filters.shape[1]


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of `step` taps; all that is about one block lies together.

    `channel`, `position` and `live` have an entry for each chunk of a run, and for each tap
    otherwise; `live` is how many channels there are from `channel` on, 0 where a tap only fills up.
    `starts` has the first chunk of each block, and the end.
    """

    channel: Indices
    position: Indices
    live: Indices
    starts: Indices
    step: int
    runs: bool


def lists_of(
    mask: FibreMask, kind: Form, outputs: int, inputs: int, groups: int, block: int
) -> Lists:
    """Lay filters into blocks; `inputs` are those of one group, and no block is in two groups."""
    each, positions = outputs // groups, mask.shape[1]
    if kind == "columns":
        blocks = [in_order(each, block)] * groups
        many = len(blocks[0])
        reads = np.repeat(mask.reshape(groups, inputs, positions), many, axis=0)
    else:
        parts = np.split(mask, groups)
        lay = laid_together if kind == "stripes" else lambda m, b: in_order(len(m), b)
        blocks = [lay(part, block) for part in parts]
        union = np.concatenate([unions(m, b) for m, b in zip(parts, blocks, strict=True)])
        reads = np.broadcast_to(union[:, None], (len(union), inputs, positions))
    moved = [np.where(b == NONE, NONE, b + g * each) for g, b in enumerate(blocks)]
    owner = np.repeat(np.arange(groups), [len(b) for b in blocks])
    return Lists(np.concatenate(moved), reads, owner)


def chunks_of(lists: Lists, step: int, runs: bool) -> Chunks:
    """Cut what blocks read into chunks.

    Positions go fastest: neighbours of the window read what is in the cache.
    """
    many, inputs, _ = lists.reads.shape
    found = lists.reads[:, ::step] if runs else lists.reads
    block, channel, position = np.nonzero(found)
    counts = np.bincount(block, minlength=many)
    if runs:
        channel = channel * step
        live = np.minimum(step, inputs - channel)
        starts = np.concatenate([[0], np.cumsum(counts)])
    else:
        starts = np.concatenate([[0], np.cumsum(-(-counts // step))])
        firsts = np.concatenate([[0], np.cumsum(counts)])
        place = starts[block] * step + np.arange(len(block)) - firsts[block]
        whole = np.zeros((3, starts[-1] * step), dtype=np.int64)
        whole[:, place] = channel, position, np.ones_like(channel)
        channel, position, live = whole
    own = lists.owner[np.repeat(np.arange(many), np.diff(starts) * (1 if runs else step))]
    return Chunks(channel + own * inputs, position, live, starts, step, runs)


def taps_of(chunks: Chunks, inputs: int, positions: int) -> Indices:
    """Return which weight of a flattened filter each tap multiplies, `inputs * positions` if none.

    `inputs` are those of one group.
    """
    none = inputs * positions
    if not chunks.runs:
        return np.where(
            chunks.live > 0, chunks.channel % inputs * positions + chunks.position, none
        )
    ahead = np.arange(chunks.step)
    taps = (chunks.channel[:, None] % inputs + ahead) * positions + chunks.position[:, None]
    return np.where(ahead < chunks.live[:, None], taps, none).reshape(-1)
