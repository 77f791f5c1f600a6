"""Data sets that are image files: sizes, colours, and what can't be read."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from tonsor.errors import DataError
from tonsor.train.data.decode import Header, UnreadableError, header, read
from tonsor.train.data.folder import Folder
from tonsor.train.data.layout import File, a_few, lay_out, some
from tonsor.train.data.source import Data, Memory, Source, Subset, statistics
from tonsor.train.data.split import hold_out
from tonsor.train.data.tree import Tree, open_tree

IN_MEMORY = 2**30  # bytes of decoded images that are kept rather than decoded each time


def folder(place: Path, *, strict: bool = False, size: int | None = None) -> Data:
    """Read a folder, or a zip archive, with a subfolder of images for each class.

    Above the classes there may be `train`, `val` and `test`. Without `test`, `val` is tested
    on; without either, a seeded fifth. `size` brings every image to size x size; without it
    all have to be of one size. If all are grey they have one channel, else three. What can't
    be read is left out and reported, or refused if `strict`. Up to 1 GiB is kept in memory.
    """
    if size is not None and size < 1:
        message = f"size={size} has to be a number of pixels above 0"
        raise DataError(message)
    tree = open_tree(place)
    layout = lay_out(tree)
    wrong = dict.fromkeys(layout.loose, "it is in no class folder")
    headers = _headers(tree, layout.files, wrong)
    shape, notes = _shape(place, headers, size)
    files = list(headers)
    keep = len(files) * shape[0] * shape[1] * shape[2] <= IN_MEMORY
    pixels = None
    if keep:
        pixels, files = _pixels(tree, files, shape, wrong)
    _check_left(place, files, layout.classes, wrong)
    if wrong:
        told = a_few(f"'{name}' ({why})" for name, why in wrong.items())
        if strict:
            message = f"'{place}': {len(wrong)} images can't be used: {told}"
            raise DataError(message)
        notes.append(f"{len(wrong)} images are left out: {told}")
        warnings.warn(f"'{place}': {notes[-1]}", UserWarning, stacklevel=3)
    if layout.others:
        notes.append(f"{layout.others} files are no images by their names")
    number = {name: index for index, name in enumerate(layout.classes)}
    labels = torch.tensor([number[file.label] for file in files])
    names = tuple(file.name for file in files)
    every = (
        Folder(tree, names, labels, layout.classes, shape)
        if pixels is None
        else Memory(pixels, labels, layout.classes, str(place))
    )
    parts = {
        part: Subset(every, torch.tensor([i for i, f in enumerate(files) if f.part == part]))
        for part in dict.fromkeys(file.part for file in files)
    }
    return _data(place, parts, notes)


def _data(place: Path, parts: dict[str, Subset], notes: list[str]) -> Data:
    train: Source = parts["train"]
    validation: Source | None = parts.get("validation")
    test: Source | None = parts.get("test")
    if test is None and validation is not None:
        test, validation = validation, None
        notes.append("there is no 'test', so 'val' is what is tested on")
    if test is None:
        train, test, note = hold_out(train, str(place))
        notes.append(note)
    mean, std = statistics(train, 10_000 if train.in_memory else 1_000)
    return Data(
        name=place.stem,
        train=train,
        validation=validation,
        test=test,
        mean=mean,
        std=std,
        licence="as the images came to you",
        notes=tuple(notes),
    )


def _headers(tree: Tree, files: Sequence[File], wrong: dict[str, str]) -> dict[File, Header]:
    """The headers of all images that have one; of the others, why not goes into `wrong`."""

    def look(file: File) -> Header | str:
        try:
            return header(tree, file.name)
        except UnreadableError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        looked = dict(zip(files, threads.map(look, files), strict=True))
    wrong.update({file.name: why for file, why in looked.items() if isinstance(why, str)})
    found = {file: said for file, said in looked.items() if isinstance(said, Header)}
    if not found:
        message = f"'{tree.place}': none of {len(files)} images can be read: {some(wrong)}"
        raise DataError(message)
    return found


def _pixels(
    tree: Tree, files: list[File], shape: tuple[int, int, int], wrong: dict[str, str]
) -> tuple[Tensor, list[File]]:
    """All images as one tensor, and the files they are from."""
    pixels = torch.empty(len(files), *shape, dtype=torch.uint8)

    def put(index: int) -> str:
        try:
            pixels[index] = read(tree, files[index].name, shape)
        except UnreadableError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        said = list(threads.map(put, range(len(files))))
    good = [index for index, why in enumerate(said) if not why]
    wrong.update({files[i].name: why for i, why in enumerate(said) if why})
    if len(good) < len(files):
        pixels = pixels[torch.tensor(good, dtype=torch.int64)]
    return pixels, [files[index] for index in good]


def _shape(
    place: Path, headers: dict[File, Header], size: int | None
) -> tuple[tuple[int, int, int], list[str]]:
    """Channels, height and width for all images, and a note if colours differ."""
    grey = sum(h.grey for h in headers.values())
    channels = 1 if grey == len(headers) else 3
    notes = []
    if 0 < grey < len(headers):
        notes.append(f"{grey} of {len(headers)} images are grey and are read as coloured ones")
    if size is not None:
        return (channels, size, size), notes
    sizes = Counter((h.height, h.width) for h in headers.values())
    (height, width), count = sizes.most_common(1)[0]
    if len(sizes) > 1:
        other = next(f.name for f, h in headers.items() if (h.height, h.width) != (height, width))
        message = (
            f"'{place}' has images of {len(sizes)} sizes: {count} of {len(headers)} are "
            f"{width}x{height}, '{other}' is not. Give size=S: each is then scaled until it just "
            f"covers S x S, and cut to that around its middle"
        )
        raise DataError(message)
    return (channels, height, width), notes


def _check_left(
    place: Path, files: list[File], classes: tuple[str, ...], wrong: dict[str, str]
) -> None:
    left = {file.label for file in files if file.part == "train"}
    if gone := [name for name in classes if name not in left]:
        message = (
            f"'{place}': no training image can be read of the classes {some(gone)}; "
            f"left out were {some(wrong)}"
        )
        raise DataError(message)
