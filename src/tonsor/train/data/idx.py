"""IDX files, as MNIST and Fashion-MNIST come in, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tonsor.errors import DataError
from tonsor.train.data.augment import Augment
from tonsor.train.data.source import Data, Memory, statistics

HOMES = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist",
}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip
LICENCES = {
    "mnist": "MNIST, Y. LeCun, C. Cortes and C. Burges; no licence stated by its authors",
    "fashion-mnist": "Fashion-MNIST, Zalando SE, MIT",
}
AUGMENTS = {"mnist": Augment(pad=2, flip=False), "fashion-mnist": Augment(pad=2, flip=True)}
FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")
PARTS = {"train": 60_000, "t10k": 10_000}


def find_idx(folder: Path) -> Path | None:
    """The folder in which IDX files of training images lie."""
    for inner in FOLDERS:
        if _file(folder / inner, "train", "images-idx3") is not None:
            return folder / inner
    return None


def idx(folder: Path, name: str, *, strict: bool = False) -> Data:
    """Read a set of grey images with ten classes from its four IDX files."""
    place = find_idx(folder) or folder
    notes: list[str] = []
    sources = []
    for part, count in PARTS.items():
        images = _read(place, part, "images-idx3", (count, 28, 28), name)
        labels = _read(place, part, "labels-idx1", (count,), name)
        if len(images) != count:
            notes.append(f"'{part}' holds {len(images):,} images, the official one {count:,}")
        sources.append(
            Memory(
                torch.from_numpy(images)[:, None],
                torch.from_numpy(labels),
                CLASSES[name],
                f"'{place}', {part}",
            )
        )
    if notes and strict:
        message = f"{'; '.join(notes)}. Get the whole set from {HOMES[name]}"
        raise DataError(message)
    train, test = sources
    if train.shape != test.shape:
        message = f"'{place}': training images are {train.shape}, test images {test.shape}"
        raise DataError(message)
    mean, std = statistics(train)
    return Data(
        name=name,
        train=train,
        test=test,
        mean=mean,
        std=std,
        augment=AUGMENTS[name],
        licence=LICENCES[name],
        notes=tuple(notes),
    )


def _file(folder: Path, part: str, what: str) -> Path | None:
    """One of the names under which such a file goes around."""
    names = (f"{part}-{what}-ubyte", f"{part}-{what.replace('-', '.')}-ubyte")
    for name in names:
        for ending in ("", ".gz"):
            if (folder / (name + ending)).is_file():
                return folder / (name + ending)
    return None


def _read(folder: Path, part: str, what: str, usual: tuple[int, ...], name: str) -> np.ndarray:
    rank = len(usual)
    home = HOMES[name]
    path = _file(folder, part, what)
    if path is None:
        size = math.prod(usual) + 4 + 4 * rank
        message = (
            f"'{folder / f'{part}-{what}-ubyte'}' is missing, also with .gz; expected is a file "
            f"of {size:,} bytes (unpacked). Get it from {home}"
        )
        raise DataError(message)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            magic, *shape = struct.unpack(f">{1 + rank}I", file.read(4 + 4 * rank))
            if magic != 0x800 + rank:
                message = (
                    f"'{path}' does not begin as an IDX file of bytes in {rank} dimensions; "
                    f"get it again from {home}"
                )
                raise DataError(message)
            if math.prod(shape) > 2**33 or 0 in shape:
                message = f"'{path}' claims to hold {shape} bytes, which can't be"
                raise DataError(message)
            # One byte more than is wanted, but no more: a small .gz can unpack to anything.
            raw = _at_most(file.read, math.prod(shape) + 1)
    except (struct.error, EOFError, OSError, zlib.error) as error:
        message = f"'{path}' is cut off or damaged ({error}); get it again from {home}"
        raise DataError(message) from error
    if len(raw) != math.prod(shape):
        more = "more" if len(raw) > math.prod(shape) else f"only {len(raw):,}"
        message = (
            f"'{path}' announces {math.prod(shape):,} bytes of shape {shape} but has {more}; "
            f"get it again from {home}"
        )
        raise DataError(message)
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _at_most(read: Callable[[int], bytes], count: int) -> bytearray:
    """Up to `count` bytes, by pieces: what a header announces is not allocated on its word."""
    raw = bytearray()
    while len(raw) < count and (piece := read(min(1 << 20, count - len(raw)))):
        raw += piece
    return raw
