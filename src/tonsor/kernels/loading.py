"""Loading a compiled library into this process, if it is what it should be."""

from __future__ import annotations

import _ctypes
import ctypes
import re
from pathlib import Path

import torch  # noqa: F401  brings the library of OpenMP whose threads the kernels share

from tonsor.errors import EngineError
from tonsor.kernels.build import is_whole
from tonsor.kernels.source import ABI

_LACKS_OPENMP = re.compile(r"undefined symbol: (GOMP|omp)_")


class NoOpenMPError(EngineError):
    """A library asks for an OpenMP that torch did not bring."""


def load(path: Path, level: str, *, sealed: bool = True) -> ctypes.CDLL:
    """Load a library of this make and level; a refusal says what is wrong with it.

    A torn file is refused by its seal, because loading it could end the process.
    """
    try:
        if sealed and not is_whole(path):
            message = f"'{path}' is damaged, or was not made by tonsor; remove it"
            raise EngineError(message)
        found = ctypes.CDLL(str(path))
    except OSError as error:
        kind = NoOpenMPError if _LACKS_OPENMP.search(str(error)) else EngineError
        message = f"'{path}' can't be loaded: {error}; remove it"
        raise kind(message) from error
    if wrong := _mismatch(found, level):
        # Or a better one, put in the same place, would not be looked at.
        _ctypes.dlclose(found._handle)
        message = f"'{path}' {wrong}; remove it"
        raise EngineError(message)
    return found


def _mismatch(found: ctypes.CDLL, level: str) -> str:
    try:
        abi, its_level = found.tonsor_abi, found.tonsor_level
    except AttributeError:
        return "holds no kernels of tonsor"
    abi.restype, its_level.restype = ctypes.c_int, ctypes.c_char_p
    if abi() != ABI:
        return f"speaks version {abi()} of the calls, and this tonsor version {ABI}"
    said = (its_level() or b"").decode("utf-8", "replace")
    return "" if said == level else f"is for level '{said}' and not '{level}'"
