"""Folders for compiled kernels: which one, whom it belongs to, and what is kept in it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.kernels.standin import Home, needs_compiler
from tonsor.errors import EngineError
from tonsor.kernels import cache, library
from tonsor.kernels.library import KernelWarning
from tonsor.kernels.source import source_key


def test_the_folder_is_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/house")
    monkeypatch.delenv("TONSOR_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.cache_folder() == Path("/house/.cache/tonsor/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert cache.cache_folder() == Path("/house/.cache/tonsor/kernels")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache.cache_folder() == Path("/elsewhere/tonsor/kernels")
    monkeypatch.setenv("TONSOR_CACHE", "~/mine")
    assert cache.cache_folder() == Path("/house/mine")


def belongs_to_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.getuid() == 0:
        os.chown(path, 4242, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4242)


@needs_compiler
@pytest.mark.parametrize("trouble", ["file", "below a file", "group", "world"])
def test_a_folder_that_can_not_be_used_is_replaced_by_a_private_one(
    home: Home, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble in ("file", "below a file"):
        home.cache.write_text("a file")
        if trouble == "below a file":
            monkeypatch.setenv("TONSOR_CACHE", str(home.cache / "deeper"))
    else:
        home.cache.mkdir()
        home.cache.chmod(0o770 if trouble == "group" else 0o707)
    with pytest.warns(KernelWarning, match=f"'{home.cache}.* (can't|can) be written to") as heard:
        assert library.library() is not None
    assert len(heard) == 1
    assert library.state().how == "compiled"
    private = cache.private_folder()
    assert [path.parent for path in home.libraries()] == [private]
    assert private.stat().st_mode & 0o777 == 0o700
    library.forget()
    assert library.library() is not None  # and without a word
    assert library.state().how == "cached"


@needs_compiler
@pytest.mark.parametrize("whose", ["folder", "file"])
def test_what_others_could_have_written_is_not_loaded(
    home: Home, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = library.state().path
    assert made is not None
    before = made.stat().st_ino
    library.forget()
    (home.cache if whose == "folder" else made).chmod(0o777)
    if whose == "folder":
        with pytest.warns(KernelWarning, match="can be written to by other users .chmod go-w"):
            assert library.library() is not None
        assert library.state().path != made
    else:
        assert library.library() is not None
        assert made.stat().st_ino != before
    assert library.state().how == "compiled"


def test_a_folder_of_another_user_is_not_trusted(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.cache.mkdir(mode=0o700)
    assert cache.distrust(home.cache) == ""
    assert home.cache in cache.readable_folders()
    belongs_to_another(home.cache, monkeypatch)
    assert "belongs to another user" in cache.distrust(home.cache)
    assert home.cache not in cache.readable_folders()


def test_a_private_folder_that_is_a_link_is_not_trusted(home: Home) -> None:
    home.cache.write_text("a file")
    (home.temporary / "real").mkdir(mode=0o700)
    cache.private_folder().symlink_to(home.temporary / "real")
    with pytest.raises(EngineError, match=r"is a link.*set TONSOR_CACHE to a folder of yours"):
        cache.writable_folder()


def test_without_any_folder_there_are_no_kernels(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.cache.write_text("a file")
    monkeypatch.setattr(tempfile, "tempdir", str(home.cache))
    with pytest.warns(KernelWarning, match="there is no folder for the kernels") as heard:
        assert library.library() is None
    assert len(heard) == 1
    assert "set TONSOR_CACHE to a folder of yours" in library.state().why


def test_cleaning_keeps_what_is_of_use_and_what_is_not_ours(home: Home) -> None:
    home.cache.mkdir(mode=0o700)
    kept = [f"v3-{source_key('v3')}-abc.so", "notes.txt", "v3.so", "other-1.so", ".lock"]
    gone = [f"v4-{source_key('v3')}-abc.so", "base-0123-abc.so"]
    for name in (*kept, *gone):
        (home.cache / name).write_text("")
    for name in (".build-old", ".build-new"):
        (home.cache / name).mkdir()
    os.utime(home.cache / ".build-old", (0, 0))
    removed = cache.clean()
    assert {path.name for path in removed} == {*gone, ".build-old"}
    assert {path.name for path in home.cache.iterdir()} == {*kept, ".build-new"}
