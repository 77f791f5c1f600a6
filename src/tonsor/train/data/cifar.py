"""CIFAR-10 and CIFAR-100 in the official binary layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.source import Data, Memory

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "CIFAR, A. Krizhevsky, 2009; no open licence"
PIXELS = 3 * 32 * 32
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Layout:
    """How one of the sets lies in files."""

    name: str
    train: tuple[str, ...]
    test: str
    names: str
    folders: tuple[str, ...]
    label_bytes: int  # of which the last is the label
    per_file: tuple[int, int]  # images in a training file and in the test file
    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


BINARY = {
    "cifar10": Layout(
        name="cifar10",
        train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
        folders=("cifar-10-batches-bin",),
        label_bytes=1,
        per_file=(10_000, 10_000),
        count=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    "cifar100": Layout(
        name="cifar100",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        folders=("cifar-100-binary",),
        label_bytes=2,
        per_file=(50_000, 10_000),
        count=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
}


def cifar_binary(folder: Path, kind: str, *, strict: bool = False) -> Data:
    """Read a set in the binary layout: label bytes, then 3,072 bytes of red, green and blue."""
    layout = BINARY[kind]
    notes: list[str] = []
    parts = [_records(folder / name, layout, layout.per_file[0], notes) for name in layout.train]
    test = _records(folder / layout.test, layout, layout.per_file[1], notes)
    classes = _class_names(folder / layout.names, layout)
    if notes and strict:
        raise DataError("; ".join(notes))
    images = torch.cat([p[0] for p in parts])
    return Data(
        name=layout.name,
        train=Memory(images, torch.cat([p[1] for p in parts]), classes, f"{folder}"),
        test=Memory(*test, classes, str(folder / layout.test)),
        mean=layout.mean,
        std=layout.std,
        licence=LICENCE,
        notes=tuple(notes),
    )


def _records(path: Path, layout: Layout, count: int, notes: list[str]) -> tuple[Tensor, Tensor]:
    record = layout.label_bytes + PIXELS
    expected = f"{count * record:,} bytes ({count:,} images of {record:,})"
    if not path.is_file():
        message = f"'{path}' is missing; expected is a file of {expected}. Get it from {HOME}"
        raise DataError(message)
    length = path.stat().st_size
    if length == 0 or length % record:
        message = (
            f"'{path}' has {length:,} bytes, which is no whole number of images; expected are "
            f"{expected}. It may be cut off: get it again from {HOME}"
        )
        raise DataError(message)
    if length != count * record:
        notes.append(f"'{path.name}' holds {length // record:,} images, not {count:,}")
    rows = torch.from_numpy(np.fromfile(path, dtype=np.uint8)).view(-1, record)
    labels = rows[:, layout.label_bytes - 1].long()
    if int(labels.max()) >= layout.count:
        first = int((labels >= layout.count).nonzero()[0])
        message = (
            f"'{path}': the label of image {first} is {int(labels[first])}, but {layout.name} "
            f"has {layout.count} classes; this is another layout or a damaged file"
        )
        raise DataError(message)
    return rows[:, layout.label_bytes :].reshape(-1, 3, 32, 32), labels


def _class_names(path: Path, layout: Layout) -> tuple[str, ...]:
    if not path.is_file():
        return CIFAR10 if layout.count == 10 else tuple(str(n) for n in range(layout.count))
    names = tuple(path.read_text("utf-8", errors="replace").split())
    if len(names) != layout.count:
        message = f"'{path}' names {len(names)} classes, but {layout.name} has {layout.count}"
        raise DataError(message)
    return names
