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

    Images in channels_last order stay in it. The flip comes last: a flipped image shows
    the place that was drawn for it, mirrored.
    """
    last = _is_channels_last(images)
    planes = images.permute(0, 2, 3, 1)[:, None] if last else images[..., None]
    B, P, H, W, U = planes.shape  # P planes of pixels, each of U bytes
    if pad:
        wide = F.pad(planes.reshape(B, P, H, W * U), (pad * U, pad * U, pad, pad))
        step = wide.shape[3]
        rows = torch.arange(P, device=images.device)[:, None] * wide.shape[2]
        rows = rows + torch.arange(H, device=images.device)
        first = torch.arange(B) * (P * wide.shape[2] * step) + drawn.top * step + drawn.left * U
        starts = first.to(images.device)[:, None, None] + rows * step
        runs = wide.view(-1).as_strided((wide.numel() - W * U + 1, W * U), (1, 1))
        planes = runs.index_select(0, starts.flatten()).view(B, P, H, W, U)
    flipped = drawn.flip.nonzero().flatten().to(images.device)
    if len(flipped):
        planes = planes if pad else planes.clone()
        planes.index_copy_(0, flipped, planes.index_select(0, flipped).flip(3))
    return planes[:, 0].permute(0, 3, 1, 2) if last else planes[..., 0]


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
