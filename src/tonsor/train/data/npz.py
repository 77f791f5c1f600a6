"""Images and labels in one `.npz` file of numpy arrays."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from tonsor.errors import DataError
from tonsor.train.data.source import CHANNELS, Data, Memory, statistics
from tonsor.train.data.split import hold_out

# Names that go around for the parts, first for images and then for labels.
NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
    "all": (("images", "labels"), ("x", "y"), ("data", "target")),
}
# What numpy, and the readers of zip and of array headers below it, raise on malformed input.
DAMAGED = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
    RuntimeError, MemoryError, SyntaxError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def npz(path: Path, *, strict: bool = False) -> Data:
    """Read `x_train, y_train, x_test, y_test` or `images, labels`, and `classes` if it is there.

    Images are whole numbers from 0 to 255, as [N, H, W], [N, H, W, C] or [N, C, H, W] with one
    or three channels. Parts called `train_images` or `val_images` are found as well. Without
    test images, a seeded fifth of all is kept for testing.
    """
    if not path.is_file():
        message = f"'{path}' is missing; expected is a file that numpy.savez has written"
        raise DataError(message)
    try:
        # Opened here, since numpy leaves a file open that it can't make sense of.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            held = {key: arrays[key] for key in arrays.files}
    except DAMAGED as error:
        message = f"'{path}' can't be read as plain arrays of numbers or text: {error}"
        raise DataError(message) from error
    parts = {part: found for part, names in NAMES.items() if (found := _part(held, names))}
    if "train" not in parts and "all" not in parts:
        wanted = "x_train and y_train, or images and labels"
        message = f"'{path}' has {sorted(held) or 'nothing'}; looked for {wanted}"
        raise DataError(message)
    if "train" not in parts:
        parts["train"] = parts["all"]
    parts.pop("all", None)
    classes = _classes(path, held, parts)
    notes: list[str] = []
    sources = {
        part: _source(f"'{path}', {x}", held[x], held[y], classes) for part, (x, y) in parts.items()
    }
    train, test = sources["train"], sources.get("test")
    unseen = [n for i, n in enumerate(classes) if not bool((train.labels == i).any())]
    if unseen:
        notes.append(f"no training image is of {', '.join(unseen[:5])}")
    if any(source.shape != train.shape for source in sources.values()):
        message = f"'{path}' has images of {[(p, s.shape) for p, s in sources.items()]}"
        raise DataError(message)
    if test is None:
        train, test, note = hold_out(train, str(path))
        notes.append(note)
    if unseen and strict:
        message = f"'{path}': {notes[0]}"
        raise DataError(message)
    mean, std = statistics(train)
    return Data(
        name=path.stem,
        train=train,
        validation=sources.get("validation"),
        test=test,
        mean=mean,
        std=std,
        licence="as the file came to you",
        notes=tuple(notes),
    )


def _part(
    held: dict[str, np.ndarray], names: tuple[tuple[str, str], ...]
) -> tuple[str, str] | None:
    return next(((x, y) for x, y in names if x in held and y in held), None)


def _classes(
    path: Path, held: dict[str, np.ndarray], parts: dict[str, tuple[str, str]]
) -> tuple[str, ...]:
    """The names in the file, or the numbers up to the largest label."""
    if "classes" in held:
        return tuple(str(name) for name in held["classes"].reshape(-1))
    labels = held[parts["train"][1]]
    if labels.dtype.kind not in "iu" or labels.size == 0:
        return ()
    count = int(labels.max()) + 1
    if count > labels.size:
        message = (
            f"'{path}': {labels.size} labels go up to {count - 1}; so many classes can't be "
            f"learnt. Number them from 0, or name them in an array 'classes'"
        )
        raise DataError(message)
    return tuple(str(n) for n in range(count))


def _source(name: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Memory:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        message = (
            f"{name}: labels are {labels.dtype} of shape {list(labels.shape)}; wanted is one "
            f"whole number for each image"
        )
        raise DataError(message)
    if images.dtype.kind not in "iu" or not images.size:
        message = (
            f"{name}: images are {images.dtype} of shape {list(images.shape)}; wanted are whole "
            f"numbers from 0 to 255"
        )
        raise DataError(message)
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        message = f"{name}: pixels go from {low} to {high}; wanted are 0 to 255"
        raise DataError(message)
    pixels = torch.from_numpy(np.ascontiguousarray(_channels_first(name, images), dtype=np.uint8))
    return Memory(pixels, torch.from_numpy(labels.astype(np.int64)), classes, name)


def _channels_first(name: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    first = images.ndim == 4 and images.shape[1] in CHANNELS
    last = images.ndim == 4 and images.shape[3] in CHANNELS
    if first == last:
        message = (
            f"{name}: it can't be told which dimension of {list(images.shape)} is the channels; "
            f"wanted is [N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels"
        )
        raise DataError(message)
    return images if first else np.moveaxis(images, 3, 1)
