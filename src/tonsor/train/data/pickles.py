"""Reading the pickles of the CIFAR python layout without trusting them.

A pickle is a program. This one may build dicts, lists, tuples, numbers, text and bytes, and
name four numpy functions and `_codecs.encode`, for which there are stand-ins: nothing of
numpy, and nothing else that the file names, is ever called. It runs in Python and not in C,
because the C reader allocates whatever size a file asks for.
"""

from __future__ import annotations

import enum
import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tonsor.errors import DataError

# What malformed input makes the machine below stumble over.
STUMBLES = (
    pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError,
    OverflowError, MemoryError, struct.error,
)  # fmt: skip
OPCODES = (
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "GLOBAL", "STACK_GLOBAL", "GET",
    "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE",
)  # fmt: skip


class _Named(enum.Enum):
    """What a file may name."""

    RECONSTRUCT = "_reconstruct"
    NDARRAY = "ndarray"
    DTYPE = "dtype"
    FROM_BUFFER = "_frombuffer"
    ENCODE = "encode"


_HOMES = {
    _Named.RECONSTRUCT: ("numpy.core.multiarray", "numpy._core.multiarray"),
    _Named.NDARRAY: ("numpy",),
    _Named.DTYPE: ("numpy",),
    _Named.FROM_BUFFER: ("numpy.core.numeric", "numpy._core.numeric"),
    _Named.ENCODE: ("_codecs",),
}
_KNOWN = {(home, named.value): named for named, homes in _HOMES.items() for home in homes}


class _Dtype:
    """Stands in for a numpy dtype: its name, and later its state."""

    def __init__(self, name: Any) -> None:
        self.name = name
        self.state: Any = ()


class _Array:
    """Stands in for a numpy array until what it claims has been checked."""

    def __init__(self) -> None:
        self.state: Any = None


class _Reader(pickle._Unpickler):
    """The pickle machine with the instructions that such files use, and no others."""

    dispatch: ClassVar[dict[int, Any]] = {
        ord(getattr(pickle, name)): pickle._Unpickler.dispatch[ord(getattr(pickle, name))]
        for name in OPCODES
    }

    # What the machine keeps; said here because it is set out of sight.
    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str, /) -> Any:
        named = _KNOWN.get((module, name))
        if named is None:
            message = f"names '{module}.{name}', which no such file needs"
            raise pickle.UnpicklingError(message)
        return named

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], args)

    dispatch[ord(pickle.REDUCE)] = load_reduce

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Dtype, _Array)):
            message = "gives a state to what is no array"
            raise pickle.UnpicklingError(message)
        self.stack[-1].state = state

    dispatch[ord(pickle.BUILD)] = load_build

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(self.stack[-1], key, value)

    dispatch[ord(pickle.SETITEMS)] = load_setitems

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _put(self.stack[-1], key, value)

    dispatch[ord(pickle.SETITEM)] = load_setitem

    def load_dict(self) -> None:
        items = self.pop_mark()
        made: dict[Any, Any] = {}
        for key, value in zip(items[::2], items[1::2], strict=True):
            _put(made, key, value)
        self.stack.append(made)

    dispatch[ord(pickle.DICT)] = load_dict
    # numpy writes writable arrays as byte arrays; bytes do as well, and are read by length.
    dispatch[ord(pickle.BYTEARRAY8)] = dispatch[ord(pickle.BINBYTES8)]


def read_pickle(path: Path, where_from: str) -> dict[str, Any]:
    """The dict in a file of the CIFAR python layout, with arrays as numpy arrays."""
    try:
        found = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(found, dict):
            message = f"holds a {type(found).__name__} and no dict"
            raise pickle.UnpicklingError(message)
        return {_text(key): _plain(value) for key, value in found.items()}
    except STUMBLES as error:
        said = str(error) if isinstance(error, pickle.UnpicklingError) else "is cut off or damaged"
        message = f"'{path}' {said}; it was not read further. Get it again from {where_from}"
        raise DataError(message) from error


def _call(named: Any, args: Any) -> Any:
    """What the named function would give, made here."""
    match named, args:
        case _Named.RECONSTRUCT, (_Named.NDARRAY, *_):
            return _Array()
        case _Named.DTYPE, (str() | bytes() as name, *_):
            return _Dtype(_text(name))
        case _Named.ENCODE, (str() as text, "latin1" | "latin-1" | b"latin1"):
            return text.encode("latin-1")
        case _Named.FROM_BUFFER, (bytes() as raw, _Dtype() as dtype, tuple() as shape, order):
            made = _Array()
            made.state = (1, shape, dtype, order == "F", raw)
            return made
    message = "calls something in a way in which no such file does"
    raise pickle.UnpicklingError(message)


def _put(into: Any, key: Any, value: Any) -> None:
    # Keys of nested tuples could be made so deep that hashing them kills the process.
    if type(into) is not dict or type(key) not in (str, bytes, int):
        message = "sets an item that is none of a plain dict"
        raise pickle.UnpicklingError(message)
    into[key] = value


def _plain(value: Any) -> Any:
    """Numpy arrays for their stand-ins; all else as it is."""
    if not isinstance(value, _Array):
        return value
    _, shape, dtype, fortran, raw = value.state
    order = dtype.state[1] if dtype.state else "|"
    if dtype.name not in ("u1", "i8", "i4", "u4", "u8") or order in (">", b">"):
        message = f"holds an array of '{dtype.name}'; wanted are bytes or whole numbers"
        raise pickle.UnpicklingError(message)
    kind = np.dtype("<" + dtype.name)
    if not all(type(n) is int and n >= 0 for n in shape):
        message = "holds an array without a proper shape"
        raise pickle.UnpicklingError(message)
    if math.prod(shape) * kind.itemsize != len(raw):
        message = f"holds an array of shape {shape} but {len(raw):,} bytes for it"
        raise pickle.UnpicklingError(message)
    return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
