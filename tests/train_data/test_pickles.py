"""Hostile and malformed pickles do nothing, and say so."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tonsor.errors import DataError
from tonsor.train.data.pickles import read_pickle

GOOD = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2, 3], "name": "x"}


class Calls:
    """Pickles as a call of whatever it is given."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def read(tmp_path: Path, raw: bytes) -> dict[str, Any]:
    path = tmp_path / "some.pickle"
    path.write_bytes(raw)
    return read_pickle(path, "its home")


@pytest.mark.parametrize("protocol", range(6))
def test_what_such_files_hold_is_read(tmp_path: Path, protocol: int) -> None:
    found = read(tmp_path, pickle.dumps(GOOD, protocol))
    assert set(found) == {"data", "labels", "name"}
    assert np.array_equal(found["data"], np.arange(12, dtype=np.uint8).reshape(3, 4))
    assert found["labels"] == [1, 2, 3]


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    raw = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x02\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01"
        b"\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x04\x01\x02\x03\xff"
        b"tbU\x06labelsq\x08]q\x09(K\x06K\x09eu."
    )
    found = read(tmp_path, raw)
    assert found["data"].tolist() == [[1, 2], [3, 255]]
    assert found["labels"] == [6, 9]


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        (os.system, ("true",), r"names '(posix|nt)\.system'"),
        (eval, ("1",), "names '(builtins|__builtin__).eval'"),
        (getattr, ("", "join"), "getattr'"),
        (np.load, ("x",), "names 'numpy.*load'"),
        (np.frombuffer, (b"x",), "frombuffer'"),
        (pickle.loads, (b"N.",), "loads'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_call_of_anything_else_is_refused(
    tmp_path: Path, function: Any, args: Any, said: str, protocol: int
) -> None:
    raw = pickle.dumps({"data": Calls(function, *args)}, protocol)
    with pytest.raises(DataError, match=said):
        read(tmp_path, raw)


def test_nothing_is_run_before_the_refusal(tmp_path: Path) -> None:
    mark = tmp_path / "was here"
    raw = pickle.dumps([Calls(os.mkdir, str(mark)), GOOD])
    with pytest.raises(DataError, match="mkdir"):
        read(tmp_path, raw)
    assert not mark.exists()


def array_of(shape: bytes, dtype: bytes, raw: bytes) -> bytes:
    """A pickle of an array that claims what it likes."""
    return (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01" + shape + b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype
        + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(raw)]) + raw + b"tbs."
    )  # fmt: skip


HUGE = struct.pack("<i", 2**31 - 1)
HOSTILE = {
    "more shape than bytes": array_of(b"K\x09K\x09\x86", b"u1", b"abcd"),
    "a huge shape": array_of(b"J" + HUGE + b"J" + HUGE + b"\x86", b"u1", b"abcd"),
    "a negative shape": array_of(b"J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86", b"u1", b"abcd"),
    "a shape of text": array_of(b"U\x01aU\x01b\x86", b"u1", b"abcd"),
    "no shape": array_of(b"N", b"u1", b"abcd"),
    "objects": array_of(b"K\x01\x85", b"O8", b"abcdefgh"),
    "a record": array_of(b"K\x01\x85", b"V8", b"abcdefgh"),
    "an unset array": b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\nK\x00\x85U\x01b\x87Rs.",
    "the class of arrays, called": b"cnumpy\nndarray\nK\x05\x85R.",
    "a reconstruction of something else": b"cnumpy.core.multiarray\n_reconstruct\nU\x01aR.",
    "a dtype of a list": b"cnumpy\ndtype\n]\x85R.",
    "another encoding": b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
    "a state for a dict": b"}}b.",
    "a state for what is named": b"cnumpy\ndtype\n}b.",
    "an item of a list": b"]K\x00K\x01s.",
    "a key that can't be hashed": b"}]K\x01s.",
    "a key of nested tuples": b"}" + b")" + b"\x85" * 200_000 + b"K\x01s.",
    "a memo too large to hold": b"\x80\x02}r\xff\xff\xff\xff0jU\x00\x00\x00.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 2**62) + b"ab.",
    "an array of bytes that is not there": b"\x96" + struct.pack("<Q", 2**62) + b"ab.",
    "a protocol to come": b"\x80\x63}.",
    "a persistent name": b"Pabc\n.",
    "an extension": b"\x82\x01.",
    "an instance": b"(ios\nsystem\n.",
    "a new object": b"cnumpy\nndarray\n)\x81.",
    "a set": b"\x8f.",
    "a number of too many digits": b"I" + b"9" * 10_000 + b"\n.",
    "nothing": b"",
    "no end": b"}",
    "an end with nothing": b".",
    "text": b"this is no pickle at all",
    "a page": b"<!DOCTYPE html><html></html>",
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_malformed_pickles_are_refused_with_the_name_of_the_file(
    tmp_path: Path, raw: bytes
) -> None:
    with pytest.raises(DataError, match=r"some\.pickle'.*Get it again from its home"):
        read(tmp_path, raw)


@given(cut=st.integers(0, 400), protocol=st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pickle_cut_off_anywhere_is_refused(tmp_path: Path, cut: int, protocol: int) -> None:
    raw = pickle.dumps(GOOD, protocol)
    with pytest.raises(DataError, match=r"some\.pickle'.*Get it again"):
        read(tmp_path, raw[: min(cut, len(raw) - 1)])


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_a_damaged_pickle_is_read_or_refused_but_never_more(
    tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(pickle.dumps(GOOD, data.draw(st.sampled_from([0, 2, 4, 5]))))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(tmp_path, bytes(raw))
    except DataError:
        return
    assert all(type(key) is str for key in found)
