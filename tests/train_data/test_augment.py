"""The batched crop, flip and normalisation against one image after another in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tonsor.errors import DataError
from tonsor.train.data import Augment
from tonsor.train.data.augment import Draw, Normalise, channels_last, crop_and_flip, draw


def one_by_one(images: np.ndarray, drawn: Draw, pad: int) -> np.ndarray:
    """What is meant, spelled out."""
    _, _, height, width = images.shape
    out = []
    for image, top, left, flip in zip(
        images, drawn.top.tolist(), drawn.left.tolist(), drawn.flip.tolist(), strict=True
    ):
        wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
        crop = wide[:, top : top + height, left : left + width]
        out.append(crop[:, :, ::-1] if flip else crop)
    return np.stack(out) if out else images


@given(
    count=st.integers(0, 9),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 5),
    flip=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_batch_is_cropped_as_its_images_are_one_by_one(
    count: int, channels: int, height: int, width: int, pad: int, flip: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (count, channels, height, width)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    before = images.clone()
    drawn = draw(Augment(pad, flip), count, generator)
    got = crop_and_flip(images, drawn, pad)
    assert np.array_equal(got.numpy(), one_by_one(images.numpy(), drawn, pad))
    assert torch.equal(images, before), "the source was written to"
    assert got.is_contiguous()


def test_every_place_and_both_sides_are_drawn_equally_often() -> None:
    drawn = draw(Augment(pad=2), 50_000, torch.Generator().manual_seed(0))
    places = torch.bincount(drawn.top * 5 + drawn.left, minlength=25)
    # Five standard deviations of a binomial count of 1/25.
    assert (places - 2000).abs().max() < 5 * (50_000 * 0.04 * 0.96) ** 0.5
    assert abs(int(drawn.flip.sum()) - 25_000) < 5 * 50_000**0.5 / 2


@given(channels=st.sampled_from([1, 3, 4]), last=st.booleans(), seed=st.integers(0, 2**31))
def test_normalising_is_what_its_definition_says(channels: int, last: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (3, channels, 5, 7), dtype=np.uint8)
    mean, std = rng.random(channels), rng.random(channels) + 0.1
    images = torch.from_numpy(pixels)
    images = channels_last(images) if last else images
    got = Normalise(tuple(mean), tuple(std))(images)
    wanted = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    assert got.dtype == torch.float32
    assert np.allclose(got.numpy(), wanted, atol=1e-5)


def test_both_orders_of_memory_hold_the_same_floats() -> None:
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    normalise = Normalise((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    last = normalise(channels_last(images))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalise(images), last)


def test_half_precision_is_rounded_once() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    exact = Normalise((0.1307,), (0.3081,))(images)
    half = Normalise((0.1307,), (0.3081,), dtype=torch.bfloat16)(images)
    assert torch.equal(half, exact.to(torch.bfloat16))


@pytest.mark.parametrize("pad", [-1, 1.5, True, "4"])
def test_a_padding_that_is_no_number_of_pixels_is_refused(pad: object) -> None:
    with pytest.raises(DataError, match="whole number of pixels"):
        Augment(pad=pad)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("std", [(0.0,), (-1.0,), (1.0, 1.0), (float("nan"),)])
def test_a_deviation_that_can_not_be_divided_by_is_refused(std: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="above zero"):
        Normalise((0.5,), std)
