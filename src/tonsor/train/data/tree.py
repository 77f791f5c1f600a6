"""A tree of image files, in a folder or in a zip archive, read by name.

Nothing is ever unpacked to disk, so that no name in an archive can lead out of a folder; names
that try are refused all the same, since such an archive is not what it says it is.
"""

from __future__ import annotations

import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from tonsor.errors import DataError

# One image of this size is 100 megapixels of raw colours; more is no image to learn from.
MOST_BYTES = 300_000_000


class Tree(Protocol):
    """Files by their names, with `/` between the parts."""

    @property
    def place(self) -> Path:
        """Where the tree is."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """All files, sorted."""
        ...

    @property
    def empty_folders(self) -> tuple[str, ...]:
        """Folders with no file in them or below them."""
        ...

    def open(self, name: str) -> IO[bytes]:
        """A file to read from."""
        ...


@dataclass(frozen=True)
class Disk:
    """A folder."""

    place: Path
    names: tuple[str, ...]
    empty_folders: tuple[str, ...]

    def open(self, name: str) -> IO[bytes]:
        """A file to read from."""
        return (self.place / name).open("rb")


class Zip:
    """An archive, open as long as it is used."""

    def __init__(self, place: Path, archive: zipfile.ZipFile) -> None:
        self.place = place
        self._archive = archive
        entries = [e for e in archive.infolist() if not e.is_dir()]
        self.names = tuple(sorted(e.filename for e in entries if not _hidden(e.filename)))
        full = {str(up) for name in self.names for up in PurePosixPath(name).parents}
        folders = (e.filename.rstrip("/") for e in archive.infolist() if e.is_dir())
        self.empty_folders = tuple(f for f in folders if f not in full and not _hidden(f))

    def open(self, name: str) -> IO[bytes]:
        """A file to read from; it ends after as many bytes as it says it has."""
        return self._archive.open(name)


def open_tree(place: Path) -> Tree:
    """List a folder or an archive."""
    if place.is_dir():
        return _disk(place)
    if not place.is_file():
        message = f"'{place}' is missing; expected is a folder or a zip archive of images"
        raise DataError(message)
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        message = f"'{place}' is no zip archive, or is cut off or damaged: {error}"
        raise DataError(message) from error
    try:
        _check(place, archive)
    except DataError:
        archive.close()
        raise
    return Zip(place, archive)


def _disk(place: Path) -> Disk:
    names: list[str] = []
    empty: list[str] = []
    # Class folders may be links, as is usual for subsets; below them links are not followed,
    # so that no circle is walked.
    roots = [place, *(p for p in place.rglob("*") if p.is_symlink() and p.is_dir())]
    for root in roots:
        for folder, inner, files in os.walk(root):
            inner[:] = sorted(name for name in inner if not _hidden(name))
            seen = [name for name in files if not _hidden(name)]
            here = Path(folder).relative_to(place)
            names += [(here / name).as_posix() for name in seen]
            if not seen and not inner and folder != str(place):
                empty.append(here.as_posix())
    return Disk(place, tuple(sorted(names)), tuple(sorted(empty)))


def _check(place: Path, archive: zipfile.ZipFile) -> None:
    seen: set[str] = set()
    for entry in archive.infolist():
        name = entry.filename
        path = PurePosixPath(name)
        wrong = (
            "leads out of the archive" if ".." in path.parts or path.is_absolute() else
            "has a backslash or a drive" if "\\" in entry.orig_filename or name[1:2] == ":" else
            "is a link" if stat.S_ISLNK(entry.external_attr >> 16) else
            "is encrypted" if entry.flag_bits & 1 else
            "is there twice" if name in seen else
            f"says it unpacks to {entry.file_size:,} bytes" if entry.file_size > MOST_BYTES else
            ""
        )  # fmt: skip
        if wrong:
            message = f"'{place}' is refused: its entry {name!r} {wrong}"
            raise DataError(message)
        seen.add(name)


def _hidden(name: str) -> bool:
    """Whether this is a file that systems leave behind, such as .DS_Store."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
