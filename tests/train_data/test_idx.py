"""MNIST and its likes, plain and gzipped, whole and broken."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train_data.sets import write_idx
from tonsor.errors import DataError
from tonsor.train.data import open_data

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = (np.arange(30) % 10).astype(np.uint8)


def write(folder: Path, ending: str = "", dot: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        write_idx(folder / f"{part}-images{dot}idx3-ubyte{ending}", IMAGES[rows])
        write_idx(folder / f"{part}-labels{dot}idx1-ubyte{ending}", LABELS[rows])
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_files_are_read_under_all_their_names(tmp_path: Path, ending: str, dot: str) -> None:
    data = open_data(write(tmp_path, ending, dot))
    assert data.name == "mnist"
    assert np.array_equal(data.train.take(torch.arange(20))[:, 0].numpy(), IMAGES[:20])
    assert np.array_equal(data.test.take(torch.arange(10))[:, 0].numpy(), IMAGES[20:])
    assert data.test.labels.tolist() == LABELS[20:].tolist()
    assert data.shape == (1, 28, 28)
    assert not data.augment.flip
    assert data.notes[0] == "'train' holds 20 images, the official one 60,000"
    with pytest.raises(DataError, match="Get the whole set"):
        open_data(tmp_path, strict=True)


def test_fashion_is_known_by_its_folder_or_by_name(tmp_path: Path) -> None:
    assert open_data(write(tmp_path / "FashionMNIST" / "raw")).name == "fashion-mnist"
    write(tmp_path / "some")
    assert "Sneaker" in open_data(f"fashion-mnist:{tmp_path / 'some'}").classes


def spoil_header(path: Path, *numbers: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(struct.pack(f">{len(numbers)}I", *numbers) + raw[4 * len(numbers) :])


TRAIN = "train-images-idx3-ubyte"
TAGS = "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: (f / "t10k-labels-idx1-ubyte").unlink(),
            r"t10k-labels-idx1-ubyte' is missing.*10,008 bytes.*https://",
        ),
        (
            lambda f: (f / TRAIN).write_bytes((f / TRAIN).read_bytes()[:-5]),
            r"announces 15,680 bytes of shape \[20, 28, 28\] but has only 15,675",
        ),
        (
            lambda f: (f / TRAIN).write_bytes((f / TRAIN).read_bytes() + b"x"),
            "but has more",
        ),
        (lambda f: (f / TRAIN).write_bytes(b"\0\0"), "cut off or damaged"),
        (lambda f: spoil_header(f / TRAIN, 0x801), "does not begin as an IDX file"),
        (lambda f: spoil_header(f / TRAIN, 0x803, 2**32 - 1, 2**32 - 1, 9), "can't be"),
        (lambda f: spoil_header(f / TRAIN, 0x803, 2**20, 28, 28), "but has only"),
        (
            lambda f: spoil_header(f / TRAIN, 0x803, 0, 28, 28),
            r"\[0, 28, 28\] bytes, which can't be",
        ),
        (lambda f: write_idx(f / TAGS, LABELS[:19]), "20 images, but labels of shape"),
        (lambda f: write_idx(f / TAGS, LABELS[:20] + 5), "out of range"),
        (
            lambda f: write_idx(f / "t10k-images-idx3-ubyte", IMAGES[20:, 2:, 2:]),
            r"training images are \(1, 28, 28\), test images \(1, 26, 26\)",
        ),
    ],
)
def test_broken_files_are_named(tmp_path: Path, spoil: Any, said: str) -> None:
    spoil(write(tmp_path))
    with pytest.raises(DataError, match=said):
        open_data(f"mnist:{tmp_path}")


def test_an_archive_that_unpacks_to_more_than_it_should_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path, ".gz") / f"{TRAIN}.gz"
    header = struct.pack(">4I", 0x803, 20, 28, 28)
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(DataError, match="has more"):
        open_data(tmp_path)


@pytest.mark.parametrize("raw", [b"not gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xff\xff"])
def test_a_broken_archive_is_named(tmp_path: Path, raw: bytes) -> None:
    (write(tmp_path, ".gz") / f"{TRAIN}.gz").write_bytes(raw)
    with pytest.raises(DataError, match=r"ubyte\.gz' is cut off or damaged"):
        open_data(tmp_path)
