"""CIFAR-10 and CIFAR-100, in the official binary layout and in the python one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.pickles import read_pickle
from tonsor.train.data.source import Data, Memory

HOME = "https://www.cs.toronto.edu/~kriz/cifar.html"
LICENCE = "CIFAR, A. Krizhevsky, 2009; published without a licence"
PIXELS = 3 * 32 * 32
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Layout:
    """How one of the sets lies in files."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str


@dataclass(frozen=True)
class Kind:
    """What is the same of a set in all its layouts."""

    name: str
    binary: Layout
    python: Layout
    label_bytes: int  # in a binary record, of which the last is the label
    label_key: str  # in a pickle
    names_key: str
    count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


KINDS = {
    "cifar10": Kind(
        name="cifar10",
        binary=Layout(
            "cifar-10-batches-bin",
            tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
            "test_batch.bin",
            "batches.meta.txt",
        ),
        python=Layout(
            "cifar-10-batches-py",
            tuple(f"data_batch_{n}" for n in range(1, 6)),
            "test_batch",
            "batches.meta",
        ),
        label_bytes=1,
        label_key="labels",
        names_key="label_names",
        count=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    "cifar100": Kind(
        name="cifar100",
        binary=Layout("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt"),
        python=Layout("cifar-100-python", ("train",), "test", "meta"),
        label_bytes=2,
        label_key="fine_labels",
        names_key="fine_label_names",
        count=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
}


def find_cifar(folder: Path, kind: str) -> tuple[Path, bool] | None:
    """The folder in which a set lies, and whether in the binary layout."""
    known = KINDS[kind]
    for layout in (known.binary, known.python):
        for place in (folder, folder / layout.folder):
            # A folder of images has folders of these names, so only files count.
            if any((place / name).is_file() for name in (*layout.train, layout.test)):
                return place, layout is known.binary
    return None


def cifar(folder: Path, name: str, *, strict: bool = False) -> Data:
    """Read a set from the folder that its archive unpacks to, or the one around that.

    A file with fewer images than the official one is noted, and refused if `strict`.
    """
    kind = KINDS[name]
    place, binary = find_cifar(folder, name) or (folder, True)
    layout = kind.binary if binary else kind.python
    read = _records if binary else _pickled
    per_file = 50_000 // len(layout.train)
    notes: list[str] = []
    parts = [read(place / file, kind, per_file, notes) for file in layout.train]
    test = read(place / layout.test, kind, 10_000, notes)
    if notes and strict:
        message = f"{'; '.join(notes)}. Get the whole set from {HOME}"
        raise DataError(message)
    classes = _class_names(place / layout.names, kind, binary=binary)
    images, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return Data(
        name=kind.name,
        train=Memory(images, labels, classes, str(place)),
        test=Memory(*test, classes, str(place / layout.test)),
        mean=kind.mean,
        std=kind.std,
        licence=LICENCE,
        notes=tuple(notes),
    )


def _records(path: Path, kind: Kind, count: int, notes: list[str]) -> tuple[Tensor, Tensor]:
    """Binary records: label bytes, then red, green and blue, each 32 rows of 32."""
    record = kind.label_bytes + PIXELS
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
    rows = torch.from_numpy(np.fromfile(path, dtype=np.uint8)).view(-1, record)
    return _checked(
        rows[:, kind.label_bytes :], rows[:, kind.label_bytes - 1], path, kind, count, notes
    )


def _pickled(path: Path, kind: Kind, count: int, notes: list[str]) -> tuple[Tensor, Tensor]:
    """A pickled dict with an array of pixels and a list of labels."""
    if not path.is_file():
        message = f"'{path}' is missing; expected is a file of {count:,} images, about "
        message += f"{count * (PIXELS + 30) // 1_000_000} MB. Get it from {HOME}"
        raise DataError(message)
    found = read_pickle(path, HOME)
    pixels, labels = found.get("data"), found.get(kind.label_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or labels is None:
        message = f"'{path}' has no bytes 'data' with '{kind.label_key}', but {sorted(found)}"
        raise DataError(message)
    whole = isinstance(labels, np.ndarray) or (
        isinstance(labels, list) and all(type(n) is int and abs(n) < 2**31 for n in labels)
    )
    if pixels.ndim != 2 or pixels.shape[1] != PIXELS or not whole or len(labels) != len(pixels):
        message = f"'{path}' has pixels of shape {pixels.shape} that do not fit its labels"
        raise DataError(message)
    rows = torch.from_numpy(np.ascontiguousarray(pixels).copy())
    numbers = torch.from_numpy(np.array(labels, dtype=np.int64))
    return _checked(rows, numbers, path, kind, count, notes)


def _checked(
    pixels: Tensor, labels: Tensor, path: Path, kind: Kind, count: int, notes: list[str]
) -> tuple[Tensor, Tensor]:
    wrong = ((labels < 0) | (labels >= kind.count)).nonzero().flatten()
    if not len(labels) or len(wrong):
        said = (
            f"the label of image {int(wrong[0])} is {int(labels[wrong[0]])}" if len(wrong) else ""
        )
        message = (
            f"'{path}': {said or 'there are no images'}, but {kind.name} has images of "
            f"{kind.count} classes; this is another set or layout, or the file is damaged"
        )
        raise DataError(message)
    if len(labels) != count:
        notes.append(f"'{path.name}' holds {len(labels):,} images, the official one {count:,}")
    return pixels.reshape(-1, 3, 32, 32), labels.long()


def _class_names(path: Path, kind: Kind, *, binary: bool) -> tuple[str, ...]:
    if not path.is_file():
        return CIFAR10 if kind.count == 10 else tuple(str(n) for n in range(kind.count))
    if binary:
        names = tuple(path.read_text("utf-8", errors="replace").split())
    else:
        listed = read_pickle(path, HOME).get(kind.names_key)
        listed = listed if isinstance(listed, list) else []
        names = tuple(n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in listed)
    if len(names) != kind.count:
        message = f"'{path}' names {len(names)} classes, but {kind.name} has {kind.count}"
        raise DataError(message)
    return names
