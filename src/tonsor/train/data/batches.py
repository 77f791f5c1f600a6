"""Batches that depend on nothing but (seed, epoch, step).

No state is kept between batches and no global generator is read or moved. So a run is resumed
by naming the epoch and the step, and any number of processes sees the same images.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.augment import (
    Augment,
    Draw,
    Normalise,
    channels_last,
    crop_and_flip,
    draw,
)
from tonsor.train.data.source import Memory, Source

Batch = tuple[Tensor, Tensor]


class Batches:
    """Normalised batches of a source, augmented all at once on the device.

    >>> source = Memory(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.zeros(5).long(), ("0",))
    >>> batches = Batches(source, size=2, mean=(0.5,), std=(0.5,), shuffle=True, seed=0)
    >>> [len(labels) for _, labels in batches.epoch(0)]
    [2, 2, 1]

    `size` is that of the global batch. Each of `world` processes gets its share, in order and
    as equal as can be; only in a last batch that is not full may shares differ by one, or be
    empty. Chance is drawn for the global batch and then shared out, on the CPU, so that neither
    the number of processes nor the device changes what is seen.
    """

    def __init__(
        self,
        source: Source,
        *,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        shuffle: bool,
        seed: int,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        channels_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if world < 1 or not 0 <= rank < world:
            message = f"rank={rank} of world={world} is no process; ranks go from 0 to world - 1"
            raise DataError(message)
        if size < 1 or size % world:
            message = f"size={size} can't be shared out equally among {world} processes"
            raise DataError(message)
        if len(mean) != source.shape[0]:
            message = f"mean has {len(mean)} channels, but the images have {source.shape[0]}"
            raise DataError(message)
        self.size = size
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment or Augment.none()
        self.device = torch.device(device)
        self.rank = rank
        self.world = world
        self.drop_last = drop_last
        self.channels_last = channels_last
        self.count = len(source)
        self.classes = len(source.classes)
        self._source = _moved(source, self.device)
        self._labels = source.labels.to(self.device)
        self._normalise = Normalise(mean, std, device=self.device, dtype=dtype)

    def __len__(self) -> int:
        """How many steps an epoch has."""
        return self.count // self.size if self.drop_last else -(-self.count // self.size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of epoch 0, the same each time, for whoever wants to look at data only."""
        return self.epoch(0)

    def global_size(self, step: int) -> int:
        """How many images this step has in all processes together."""
        return min(self.size, self.count - step * self.size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Images and labels of one epoch, from step `start` on."""
        if not 0 <= start <= len(self):
            message = f"start={start} is outside of an epoch of {len(self)} steps"
            raise DataError(message)
        return self._epoch(self._order(number), number, start)

    def _epoch(self, order: Tensor, number: int, start: int) -> Iterator[Batch]:
        shares = ((step, *self._share(order, step)) for step in range(start, len(self)))
        if self._source.in_memory:
            for step, rows, part in shares:
                yield self._finish(self._source.take(rows), rows, part, number, step)
            return
        # Decoding is slow: the next batch is read while this one is used.
        with ThreadPoolExecutor(1) as reader:
            waiting: tuple[Future[Tensor], Tensor, slice, int] | None = None
            for step, rows, part in shares:
                coming = (reader.submit(self._source.take, rows), rows, part, step)
                if waiting:
                    yield self._finish(waiting[0].result(), *waiting[1:3], number, waiting[3])
                waiting = coming
            if waiting:
                yield self._finish(waiting[0].result(), *waiting[1:3], number, waiting[3])

    def _order(self, number: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.count)
        return torch.randperm(self.count, generator=_generator(self.seed, number))

    def _share(self, order: Tensor, step: int) -> tuple[Tensor, slice]:
        """The rows of this process in a global batch, and which part of the batch they are."""
        count = self.global_size(step)
        part = slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)
        return order[step * self.size : step * self.size + count][part], part

    def _finish(self, images: Tensor, rows: Tensor, part: slice, number: int, step: int) -> Batch:
        images = images.to(self.device, non_blocking=True)
        if self.augment != Augment.none():
            drawn = self._draw(number, step).share(part)
            images = crop_and_flip(images, drawn, self.augment.pad)
        if self.channels_last:
            images = channels_last(images)
        labels = self._labels.index_select(0, rows.to(self.device))
        return self._normalise(images), labels

    def _draw(self, number: int, step: int) -> Draw:
        generator = _generator(self.seed, number, step)
        return draw(self.augment, self.global_size(step), generator)


def _generator(*numbers: int) -> torch.Generator:
    """A generator of its own for this place in the run.

    Hashed, since sums or strides of seeds would let different places share their chance.
    """
    packed = b"".join(struct.pack("<q", number) for number in numbers)
    digest = hashlib.blake2b(packed, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _moved(source: Source, device: torch.device) -> Source:
    """A small source is moved to an accelerator once, where each batch is then cut from it."""
    if device.type == "cpu" or not source.in_memory:
        return source
    images = source.take(torch.arange(len(source))).to(device)
    return Memory(images, source.labels, source.classes)
