"""Which image files of a tree belong to which class of which part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from tonsor.errors import DataError
from tonsor.train.data.tree import Tree

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
PARTS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True)
class File:
    """An image file, the part it is in, and its class."""

    name: str
    part: str
    label: str


@dataclass(frozen=True)
class Layout:
    """The files of a tree, sorted, and what lies around without a class."""

    files: tuple[File, ...]
    loose: tuple[str, ...]
    others: int

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes in the order of their labels, which is that of names."""
        return tuple(sorted({file.label for file in self.files if file.part == "train"}))


def lay_out(tree: Tree) -> Layout:
    """Find parts and classes: `[train|val|test]/class/.../image`, perhaps all in one folder."""
    images = [name for name in tree.names if is_image(name)]
    if not images:
        message = (
            f"'{tree.place}' has no images; looked for a subfolder for each class, or train/, "
            f"val/ and test/ with such in them, and files ending in {', '.join(SUFFIXES)}"
        )
        raise DataError(message)
    above = _above(images)
    tops = {name[len(above) :].split("/")[0] for name in images}
    parted = {top for top in tops if top.lower() in PARTS and above + top not in images}
    if parted and parted != tops:
        message = (
            f"'{tree.place}' has {some(sorted(tops))} side by side; there should be either "
            f"classes or only train, val and test"
        )
        raise DataError(message)
    found = list(_files(images, above, parted=bool(parted)))
    files = tuple(file for file in found if isinstance(file, File))
    layout = Layout(
        files,
        tuple(name for name in found if isinstance(name, str)),
        len(tree.names) - len(images),
    )
    # A file name makes an empty folder look like one with something in it.
    folders = [*tree.names, *(f"{name}/." for name in tree.empty_folders)]
    listed = {
        (file.part, file.label)
        for file in _files([f for f in folders if f.startswith(above)], above, parted=bool(parted))
        if isinstance(file, File)
    }
    _check(tree, layout, listed)
    return layout


def is_image(name: str) -> bool:
    """Whether a file is called like an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def some(names: Iterable[str]) -> str:
    """A few of the names, and how many more there are."""
    return a_few(f"'{name}'" for name in names)


def a_few(texts: Iterable[str], most: int = 5) -> str:
    """The first of the texts, and how many more there are."""
    listed = list(texts)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _files(names: list[str], above: str, *, parted: bool) -> Iterator[File | str]:
    """A file for each name in a class folder; of others the bare name."""
    for name in names:
        *folders, _ = name[len(above) :].split("/")
        part = PARTS.get(folders.pop(0).lower(), "") if parted and folders else "train"
        yield File(name, part, folders[0]) if folders and part else name


def _above(images: list[str]) -> str:
    """The folders that all images share, with their classes still below."""
    above = ""
    while True:
        rest = [name[len(above) :].split("/") for name in images]
        if len({parts[0] for parts in rest}) > 1 or min(map(len, rest)) < 3:
            return above
        above += rest[0][0] + "/"


def _check(tree: Tree, layout: Layout, listed: set[tuple[str, str]]) -> None:
    """Refuse classes that can't be meant."""
    there = {(file.part, file.label) for file in layout.files}
    if empty := sorted(f"{part}: {label}" for part, label in listed - there):
        message = f"'{tree.place}' has class folders without images, {some(empty)}; remove them"
        raise DataError(message)
    if len(layout.classes) < 2:
        message = (
            f"'{tree.place}' has images to learn from in {len(layout.classes)} class folders "
            f"({some(layout.classes) or 'none'}); there should be one for each class, at least two"
        )
        raise DataError(message)
    if strange := sorted({label for _, label in there} - set(layout.classes)):
        message = f"'{tree.place}' has classes without training images: {some(strange)}"
        raise DataError(message)
