"""A data set is found by its name or its place, or the error says what was looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.train_data.sets import cifar10_binary
from tonsor.errors import DataError
from tonsor.train.data import open_data


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("digit", "neither a data set nor a path that exists. Data sets are 'digits', 'cifar10:P"),
        ("cifar11:here", "neither a data set nor a path"),
        ("cifar10:", "does not say where; write 'cifar10:PATH'"),
        ("cifar10:nowhere", r"data_batch_1\.bin' is missing"),
        ("folder:nowhere", "'nowhere' is missing; expected is a folder or a zip"),
        ("", "does not say|neither|holds no data"),
    ],
)
def test_what_is_no_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        open_data(spec)


def test_a_folder_with_nothing_in_it_tells_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for data_batch_1 .*train-images.*subfolders"):
        open_data(tmp_path)
    (tmp_path / "some.txt").write_text("x")
    with pytest.raises(DataError, match=r"neither \.npz nor \.zip"):
        open_data(tmp_path / "some.txt")


@pytest.mark.parametrize("spec", ["digits", "cifar10:FOLDER"])
def test_a_size_is_for_image_files_only(tmp_path: Path, spec: str) -> None:
    cifar10_binary(tmp_path)
    with pytest.raises(DataError, match="size=16 is for image files"):
        open_data(spec.replace("FOLDER", str(tmp_path)), size=16)


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_is_a_number_of_pixels(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="above 0"):
        open_data(tmp_path, size=size)


def test_a_missing_pillow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    plain = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return plain(name, *args, **more)

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"x")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs Pillow: pip install 'tonsor\[train\]'"):
        open_data(tmp_path)
