"""Arrays in one file, under the names and in the shapes that go around."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tonsor.errors import DataError
from tonsor.train.data import open_data

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def save(folder: Path, **arrays: Any) -> Path:
    np.savez_compressed(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (GREY, GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (COLOUR, np.moveaxis(COLOUR, 3, 1)),
        (np.moveaxis(COLOUR, 3, 1), np.moveaxis(COLOUR, 3, 1)),
        (GREY.astype(np.int64), GREY[:, None]),
    ],
)
def test_images_are_brought_to_channels_first(
    tmp_path: Path, images: np.ndarray, wanted: np.ndarray
) -> None:
    path = save(tmp_path, x_train=images, y_train=LABELS, x_test=images[:8], y_test=LABELS[:8])
    data = open_data(path)
    assert np.array_equal(data.train.take(torch.arange(20)).numpy(), wanted)
    assert np.array_equal(data.test.take(torch.arange(8)).numpy(), wanted[:8])
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.classes == ("0", "1", "2", "3")
    assert data.name == "mine"


def test_other_names_and_a_validation_set_and_labels_in_columns(tmp_path: Path) -> None:
    tall = LABELS[:, None].astype(np.uint8)
    data = open_data(
        save(
            tmp_path, train_images=COLOUR, train_labels=tall, val_images=COLOUR[:4],
            val_labels=tall[:4], test_images=COLOUR[4:8], test_labels=tall[4:8],
            classes=np.array(["a", "b", "c", "d"]),
        )
    )  # fmt: skip
    assert data.validation is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 4, 4)
    assert data.classes == ("a", "b", "c", "d")


def test_a_fifth_is_kept_where_there_is_no_test(tmp_path: Path) -> None:
    data = open_data(save(tmp_path, images=GREY, labels=LABELS))
    assert (len(data.train), len(data.test)) == (16, 4)
    assert "4 of 20 are kept for testing" in data.notes[0]


def test_a_class_without_images_is_noted_and_refused_if_strict(tmp_path: Path) -> None:
    path = save(tmp_path, images=GREY, labels=LABELS, classes=np.array(list("abcde")))
    assert "no training image is of e" in open_data(path).notes
    with pytest.raises(DataError, match="no training image is of e"):
        open_data(path, strict=True)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": GREY}, "has .'images'.; looked for x_train and y_train"),
        ({}, "has nothing; looked for"),
        ({"images": GREY / 255, "labels": LABELS}, "images are float64.*0 to 255"),
        ({"images": GREY.astype(int) - 1, "labels": LABELS}, "pixels go from -1"),
        ({"images": GREY.astype(int) + 9, "labels": LABELS}, "to 264; wanted"),
        ({"images": GREY, "labels": LABELS[:-1]}, "20 images, but labels"),
        ({"images": GREY, "labels": LABELS / 1}, "labels are float64"),
        ({"images": GREY, "labels": np.eye(4)[LABELS].astype(int)}, r"shape \[20, 4\]"),
        ({"images": GREY, "labels": LABELS - 1}, "out of range; the first is -1 at index 0"),
        ({"images": GREY, "labels": LABELS * 100}, "go up to 300; so many classes"),
        ({"images": GREY, "labels": LABELS, "classes": np.array(["a"])}, "there are 1 classes"),
        ({"images": COLOUR[:, :3, :3], "labels": LABELS}, "can't be told which dimension"),
        ({"images": COLOUR[..., :2], "labels": LABELS}, "can't be told which dimension"),
        ({"images": GREY[0], "labels": LABELS}, "can't be told which dimension"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "images are uint8 of shape"),
        ({"images": np.array([None] * 20), "labels": LABELS}, "plain arrays"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY[:, 1:], "y_test": LABELS},
            r"\('test', \(1, 5, 5\)\)",
        ),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": GREY, "y_test": LABELS + 1},
            "x_test: 5 of 20 labels are out of range",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays, allow_pickle=True)
    with pytest.raises(DataError, match=said):
        open_data(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.npz' is missing"):
        open_data(f"npz:{tmp_path / 'no.npz'}")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(save(tmp_path, images=GREY[:4, :2, :2], labels=LABELS[:4]).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.sampled_from([len(raw), data.draw(st.integers(0, len(raw)))]))
    (tmp_path / "bad.npz").write_bytes(raw[:end])
    said = ""
    try:
        open_data(tmp_path / "bad.npz")
    except DataError as error:
        said = str(error)
    assert not said or "bad.npz" in said
