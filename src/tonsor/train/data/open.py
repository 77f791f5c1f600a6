"""Opening a data set by its name or its place."""

from __future__ import annotations

from pathlib import Path

from tonsor.errors import DataError
from tonsor.train.data.cifar import KINDS, cifar, find_cifar
from tonsor.train.data.digits import digits
from tonsor.train.data.idx import HOMES, find_idx, idx
from tonsor.train.data.images import folder
from tonsor.train.data.npz import npz
from tonsor.train.data.source import Data

PLACED = (*KINDS, *HOMES, "folder", "npz")
SPECS = "'digits', " + ", ".join(f"'{kind}:PATH'" for kind in PLACED)


def open_data(spec: str | Path, *, strict: bool = False, size: int | None = None) -> Data:
    """Open a data set: "digits", "cifar10:FOLDER", "folder:PATH", or a path that tells by itself.

    >>> len(open_data("digits").train)
    1437

    The kinds are digits (comes with the package), cifar10 and cifar100 (binary or python
    layout), mnist and fashion-mnist (IDX), folder (images in class folders, or a zip of them)
    and npz. `size` is for image files only: they are scaled until they just cover a square of
    that size and cut to it. Whatever is missing, damaged or left out is in `notes`; with
    `strict` it is an error.
    """
    kind, place = _told_apart(spec)
    if size is not None and kind != "folder":
        message = f"size={size} is for image files; '{spec}' has images of one size already"
        raise DataError(message)
    if kind == "digits":
        return digits()
    if kind in KINDS:
        return cifar(place, kind, strict=strict)
    if kind in HOMES:
        return idx(place, kind, strict=strict)
    if kind == "npz":
        return npz(place, strict=strict)
    return folder(place, strict=strict, size=size)


def _told_apart(spec: str | Path) -> tuple[str, Path]:
    """The kind and the place of a data set."""
    if spec == "digits":
        return "digits", Path()
    if isinstance(spec, str):
        kind, colon, place = spec.partition(":")
        if kind in PLACED and colon:
            if not place:
                message = f"'{spec}' does not say where; write '{kind}:PATH'"
                raise DataError(message)
            return kind, Path(place).expanduser()
    path = Path(spec).expanduser()
    if path.is_file():
        if path.suffix.lower() == ".npz":
            return "npz", path
        if path.suffix.lower() == ".zip":
            return "folder", path
        message = f"'{path}' is a file, but neither .npz nor .zip. Data sets are {SPECS}"
        raise DataError(message)
    if not path.is_dir():
        message = f"'{spec}' is neither a data set nor a path that exists. Data sets are {SPECS}"
        raise DataError(message)
    for kind in KINDS:
        if find_cifar(path, kind):
            return kind, path
    if (inner := find_idx(path)) is not None:
        fashion = "fashion" in str(inner.resolve()).lower()
        return "fashion-mnist" if fashion else "mnist", path
    if any(child.is_dir() for child in path.iterdir()):
        return "folder", path
    message = (
        f"'{path}' holds no data set; looked for data_batch_1 or data_batch_1.bin (cifar10), "
        f"train or train.bin (cifar100), train-images-idx3-ubyte (mnist), and for subfolders "
        f"with images. Data sets are {SPECS}"
    )
    raise DataError(message)
