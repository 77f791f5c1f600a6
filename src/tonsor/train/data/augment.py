"""Cropping, flipping and normalising a whole batch of uint8 images at once.

A crop at random places is a choice of rows: after padding, every row of every cropped image is
a run of bytes at some place in one flat buffer, so that the batch is a single gather of runs.
It stays in bytes to the end, when one multiply-add makes it normalised floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.errors import DataError


@dataclass(frozen=True)
class Augment:
    """Pad with black by `pad`, crop back at a random place, and mirror half of the images.

    >>> Augment()
    Augment(pad=4, flip=True)
    """

    pad: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.pad, bool) or not isinstance(self.pad, int) or self.pad < 0:
            message = f"pad={self.pad!r} has to be a whole number of pixels, 0 or more"
            raise DataError(message)

    @staticmethod
    def none() -> Augment:
        """Leave images as they are."""
        return Augment(pad=0, flip=False)


@dataclass(frozen=True)
class Draw:
    """What chance has decided for each image of a batch: where the crop begins, who is flipped."""

    top: Tensor
    left: Tensor
    flip: Tensor

    def share(self, part: slice) -> Draw:
        """The decisions for a part of the batch."""
        return Draw(self.top[part], self.left[part], self.flip[part])


def draw(augment: Augment, count: int, generator: torch.Generator) -> Draw:
    """Decide for `count` images; always drawn on the CPU, so that every device sees the same."""
    places = torch.randint(0, 2 * augment.pad + 1, (2, count), generator=generator)
    heads = torch.randint(0, 2, (count,), generator=generator, dtype=torch.bool)
    return Draw(places[0], places[1], heads if augment.flip else torch.zeros_like(heads))


def crop_and_flip(images: Tensor, drawn: Draw, pad: int) -> Tensor:
    """Pad with zeros, crop back to the size, mirror: uint8 [B, C, H, W] on any device.

    The flip comes last: a flipped image shows the place that was drawn for it, mirrored.
    """
    B, C, H, W = images.shape
    device = images.device
    # Writing bytes to scattered places is slow and reading them is not: so the flipped images
    # are put behind the others, and the gather at the end brings all back into order.
    plain, flipped = (~drawn.flip).nonzero().flatten(), drawn.flip.nonzero().flatten()
    place = torch.cat([plain, flipped]).argsort()
    mirrored = images.index_select(0, flipped.to(device)).flip(3)
    images = torch.cat([images.index_select(0, plain.to(device)), mirrored])
    if not pad:
        return images.index_select(0, place.to(device))
    images = F.pad(images, (pad, pad, pad, pad))
    _, _, height, width = images.shape
    left = torch.where(drawn.flip, 2 * pad - drawn.left, drawn.left)
    first = (place * C * height + drawn.top) * width + left
    rows = torch.arange(C)[:, None] * height + torch.arange(H)
    starts = first[:, None, None] + rows * width
    runs = images.view(-1).as_strided((max(0, images.numel() - W + 1), W), (1, 1))
    return runs.index_select(0, starts.flatten().to(device)).view(B, C, H, W)


def channels_last(images: Tensor) -> Tensor:
    """The same images with their channels beside each other in memory.

    Stacking a few planes takes half the time that a general change of order does.
    """
    return torch.stack(images.unbind(1), -1).permute(0, 3, 1, 2)


class Normalise:
    """Bytes to floats with the mean taken off and the deviation divided out, per channel."""

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if len(mean) != len(std) or not all(s > 0 for s in std):
            message = f"mean={mean} and std={std} need one number per channel, std above zero"
            raise DataError(message)
        self.dtype = dtype
        double = torch.tensor([mean, std], dtype=torch.float64)
        self.scale = (1 / (255 * double[1])).float().to(device)
        self.shift = (-double[0] / double[1]).float().to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [B, C, H, W] to normalised floats in the same order of memory."""
        if _is_channels_last(images):
            # A row of pixels is one run: with the factors repeated along it, the inner loop is
            # as long as the row, not as long as the few channels.
            rows = images.permute(0, 2, 3, 1).flatten(2)
            scale, shift = (v.repeat(images.shape[3]) for v in (self.scale, self.shift))
            floats = rows.float().mul_(scale).add_(shift)
            floats = floats.view(images.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        else:
            scale, shift = (v[:, None, None] for v in (self.scale, self.shift))
            floats = images.float().mul_(scale).add_(shift)
        return floats.to(self.dtype)


def _is_channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
