"""Where images come from: labelled sets of them, and what belongs to a set.

Images are uint8 until the moment they are augmented: a quarter of the memory, and cropping
and flipping move bytes instead of floats.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.augment import Augment

CHANNELS = (1, 3)


class Source(Protocol):
    """Labelled images of one size, wherever they are kept."""

    @property
    def labels(self) -> Tensor:
        """The class of every image: int64, [N]."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether taking images is mere copying, with nothing to read or to decode."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, [B, C, H, W]."""
        ...


class Memory:
    """Images held as one uint8 tensor.

    >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    >>> Memory(images, torch.tensor([0, 1, 0, 1]), ("cat", "dog")).take(torch.tensor([2])).shape
    torch.Size([1, 3, 8, 8])
    """

    in_memory = True

    def __init__(
        self, images: Tensor, labels: Tensor, classes: tuple[str, ...], name: str = "the images"
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            message = (
                f"{name} are {str(images.dtype).removeprefix('torch.')} of shape "
                f"{list(images.shape)}; wanted is uint8 of shape [N, C, H, W]"
            )
            raise DataError(message)
        if labels.shape != images.shape[:1]:
            message = f"{name}: {len(images)} images, but labels of shape {list(labels.shape)}"
            raise DataError(message)
        self.images = images
        self.labels = checked_labels(labels, classes, name)
        self.classes = classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, [B, C, H, W]."""
        return self.images.index_select(0, indices.to(self.images.device))


class Subset:
    """Some images of another source, in a given order; nothing is copied."""

    def __init__(self, source: Source, rows: Tensor) -> None:
        self.source = source
        self.rows = rows
        self.labels = source.labels[rows]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.source.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.source.shape

    @property
    def in_memory(self) -> bool:
        """Whether taking images is mere copying, with nothing to read or to decode."""
        return self.source.in_memory

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Tensor) -> Tensor:
        """The images at these indices: uint8, [B, C, H, W]."""
        return self.source.take(self.rows[indices])


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set as it was opened: its images, and what is known about them.

    `mean` and `std` are by channel, of pixels between 0 and 1. `augment` is what suits these
    images: a mirrored ship is a ship, a mirrored 2 is no digit. `notes` says what was left out
    or is not as it usually is.
    """

    name: str
    train: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: Source | None = None
    augment: Augment = field(default_factory=Augment)
    licence: str = ""
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self.train.classes

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        return self.train.shape


def checked_labels(labels: Tensor, classes: tuple[str, ...], name: str) -> Tensor:
    """The labels as int64, after checking that each of them names a class."""
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        message = f"{name}: labels are {labels.dtype}; they have to be whole numbers from 0 on"
        raise DataError(message)
    labels = labels.to(torch.int64)
    wrong = ((labels < 0) | (labels >= len(classes))).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        message = (
            f"{name}: {len(wrong)} of {len(labels)} labels are out of range; the first is "
            f"{int(labels[first])} at index {first}, and there are {len(classes)} classes, "
            f"0 to {len(classes) - 1}"
        )
        raise DataError(message)
    return labels


def statistics(source: Source, at_most: int = 10_000) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation by channel, of pixels between 0 and 1.

    Of more than `at_most` images, that many at equal distances are looked at. The standard
    deviation is over all pixels at once; one that would be zero is given as 1.
    """
    count = len(source)
    rows = torch.arange(0, count, max(1, -(-count // at_most)))
    total = torch.zeros(source.shape[0], dtype=torch.float64)
    square = torch.zeros_like(total)
    pixels = len(rows) * source.shape[1] * source.shape[2]
    for chunk in rows.split(256):
        images = source.take(chunk).to(torch.float64)
        total += images.sum((0, 2, 3))
        square += images.square_().sum((0, 2, 3))
    mean = total / pixels
    std = (square / pixels - mean.square()).clamp_(min=0).sqrt()
    std[std == 0] = 255
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
