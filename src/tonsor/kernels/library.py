"""The library of kernels of this process: found, compiled once, or not there with a reason."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tonsor.errors import EngineError
from tonsor.kernels import cache
from tonsor.kernels.build import build, library_name, uses_openmp
from tonsor.kernels.compiler import Compiler, find_compiler
from tonsor.kernels.level import OFF, VARIABLE, choose_level, wanted_level
from tonsor.kernels.loading import NoOpenMPError, load
from tonsor.kernels.source import check_system

PREBUILT = Path(__file__).with_name("lib")

How = Literal["prebuilt", "compiled", "cached", "none"]


class KernelWarning(UserWarning):
    """Kernels are missing, or not where they should be; results stay the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """How the kernels came here, or why there are none."""

    how: How
    level: str = ""
    path: Path | None = None
    why: str = ""
    seconds: float = 0.0
    openmp: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    library: ctypes.CDLL | None
    state: State
    warning: str = ""


_lock = threading.Lock()
_found: _Found | None = None


def library() -> ctypes.CDLL | None:
    """Return the kernels, compiled if need be, or nothing where there can be none.

    The first call of a process does the work. Where there are none, it warns once and says why.
    """
    return _settle().library


def state() -> State:
    """Say how the kernels came here, which makes them come if nobody has asked yet."""
    return _settle().state


def look() -> State:
    """Say what is there, as `state` does, but compile nothing and warn of nothing.

    >>> look().how in ("prebuilt", "compiled", "cached", "none")
    True
    """
    with _lock:
        return (_found or _search(compiles=False)).state


def forget() -> None:
    """Forget what was found, so that the next call searches anew."""
    global _found
    with _lock:
        _found = None


def _settle() -> _Found:
    global _found
    if _found is not None:  # what most calls come to, without waiting for others
        return _found
    with _lock:
        known = _found
        found = _found = known or _search(compiles=True)
    if known is None and found.warning:
        # Where in a program it happens to come up says nothing, so none of its lines is shown.
        warnings.warn_explicit(found.warning, KernelWarning, "tonsor", 1)
    return found


def _unlocked() -> None:
    """Give a forked process a lock of its own: the thread that held the old one is not in it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlocked)


# ---------------------------------------------------------------- searching


def _search(*, compiles: bool) -> _Found:
    if wanted_level() == OFF:
        return _Found(None, State(how="none", why=f"{VARIABLE}=off"))
    level = ""
    try:
        check_system()
        level = choose_level()
        return _prebuilt(level) or _own(level, compiles=compiles)
    except EngineError as error:
        return _Found(None, State(how="none", level=level, why=str(error)), _missing(str(error)))


def _missing(why: str) -> str:
    return (
        f"tonsor runs without its compiled kernels, right but slower: {why}. "
        f"`tonsor doctor` tells more; {VARIABLE}=off says that you know."
    )


def _prebuilt(level: str) -> _Found | None:
    """Return the library that was installed with tonsor, if it is of these sources and loads.

    Who could change it could as well change the Python code beside it, so nobody is distrusted.
    """
    path = PREBUILT / library_name(level)
    if not path.is_file():
        return None
    try:
        return _Found(load(path, level, sealed=False), _state("prebuilt", level, path))
    except EngineError:
        return None  # made for a newer system, say: what is compiled here will do


def _own(level: str, *, compiles: bool) -> _Found:
    """Return a library from the cache, which is compiled first if it must be."""
    try:
        compiler, trouble = find_compiler(), ""
    except EngineError as error:
        compiler, trouble = None, str(error)
    if found := _cached(level, compiler):
        return found
    if compiler is None:
        raise EngineError(trouble)
    if not compiles:
        message = "not compiled yet; the first use does that, or `tonsor doctor --build`"
        raise EngineError(message)
    return _compiled(level, compiler)


def _cached(level: str, compiler: Compiler | None) -> _Found | None:
    """Return what was compiled before; without a compiler, by whatever compiler there was."""
    name = library_name(level, compiler)
    pattern = name if compiler else f"{name.removesuffix('.so')}-*.so"
    for folder in cache.readable_folders():
        for path in sorted(folder.glob(pattern)):
            if cache.distrust(path):
                continue
            try:
                return _Found(load(path, level), _state("cached", level, path))
            except EngineError:
                continue  # torn, or of another make: compiled anew, and so replaced
    return None


def _compiled(level: str, compiler: Compiler) -> _Found:
    folder, elsewhere = cache.writable_folder()
    path, start = folder / library_name(level, compiler), time.perf_counter()
    with cache.alone(folder):
        if found := _cached(level, compiler):  # by another process, while this one waited
            return found
        _tell(f"compiling kernels for this processor ({level}, {compiler.version}), once")
        build(level, compiler, path)
        try:
            loaded = load(path, level)
        except NoOpenMPError:
            build(level, compiler, path, openmp=False)
            loaded = load(path, level)
    seconds = time.perf_counter() - start
    made = replace(_state("compiled", level, path), seconds=seconds)
    _tell(f"made '{path}' in {seconds:.1f} seconds" + ("" if made.openmp else f"; {made.why}"))
    if not elsewhere:
        return _Found(loaded, made)
    return _Found(
        loaded,
        replace(made, why="; ".join(filter(None, (elsewhere, made.why)))),
        f"tonsor: {elsewhere}",
    )


def _tell(text: str) -> None:
    sys.stderr.write(f"tonsor: {text}\n")
    sys.stderr.flush()


def _state(how: How, level: str, path: Path) -> State:
    openmp = uses_openmp(path)
    why = "" if openmp else "one thread only, because the compiler has no OpenMP that torch shares"
    return State(how=how, level=level, path=path, why=why, openmp=openmp)
