"""Where compiled kernels are kept: folders that nobody else can put a library into."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonsor.errors import EngineError
from tonsor.kernels.source import LEVELS, source_key

VARIABLE = "TONSOR_CACHE"
_LOCK = ".lock"
_STALE = 3600.0  # seconds after which what a build left behind is nobody's any more


def cache_folder() -> Path:
    """Return the folder that is asked for, whether it can be used or not."""
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        return Path(named).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # the convention says that others don't count
        base = Path(os.path.expanduser("~")) / ".cache"  # noqa: PTH111  never raises
    return base.absolute() / "tonsor" / "kernels"


def private_folder() -> Path:
    """Return where kernels go if the cache can't be used: a folder of this user alone."""
    return Path(tempfile.gettempdir()).absolute() / f"tonsor-kernels-{os.getuid()}"


def distrust(path: Path) -> str:
    """Say why a folder or file may hold what others wrote, or nothing."""
    try:
        status = path.stat(follow_symlinks=path != private_folder())
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    if stat.S_ISLNK(status.st_mode):
        return "is a link, which others may have made"
    if status.st_uid not in (os.getuid(), 0):
        return f"belongs to another user ({status.st_uid})"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by other users (chmod go-w helps)"
    return ""


def readable_folders() -> Iterator[Path]:
    """Yield the folders that may hold kernels which can be trusted."""
    if not hasattr(os, "getuid"):  # on Windows, where there are no kernels
        return
    for folder in (cache_folder(), private_folder()):
        if folder.is_dir() and not distrust(folder):
            yield folder


def writable_folder() -> tuple[Path, str]:
    """Return a folder to compile into, and why it is not the one that was asked for, if so."""
    wanted, own = cache_folder(), private_folder()
    refused = _refusal(wanted)
    if not refused:
        return wanted, ""
    if lost := _refusal(own):
        message = (
            f"there is no folder for the kernels: '{wanted}' {refused}, and '{own}' {lost}; set "
            f"{VARIABLE} to a folder of yours"
        )
        raise EngineError(message)
    return own, f"'{wanted}' {refused}, so kernels go to '{own}'; set {VARIABLE} to another folder"


def _refusal(folder: Path) -> str:
    """Make a folder ready to be written to, or say why that can't be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if doubt := distrust(folder):
            return doubt
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"can't be written to ({error.strerror or error})"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other process compiles into a folder.

    Where a file system knows no locks, two may compile; each puts a whole library in its place.
    """
    import fcntl  # there is none on Windows

    try:
        opened = (folder / _LOCK).open("ab")
    except OSError as error:
        message = (
            f"the kernels can't be written to '{folder}': {error.strerror or error}; set "
            f"{VARIABLE} to another folder"
        )
        raise EngineError(message) from error
    with opened as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Said aloud, because a process that forked meanwhile holds the same open file.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)


def clean() -> list[Path]:
    """Remove kernels of other sources than those at hand, and return what has gone."""
    kept = tuple(f"{level}-{source_key(level)}-" for level in LEVELS)
    gone = []
    for folder in readable_folders():
        for path in sorted(folder.iterdir()):
            built = path.suffix == ".so" and path.name.startswith(tuple(f"{x}-" for x in LEVELS))
            if built and not path.name.startswith(kept):
                path.unlink(missing_ok=True)
                gone.append(path)
            elif path.name.startswith(".build-") and _age(path) > _STALE:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path)
    return gone


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
