"""CIFAR in both layouts, whole and broken, and the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train_data.sets import (
    cifar10_binary,
    records,
    write_binary,
    write_pickle,
)
from tonsor.errors import DataError
from tonsor.train.data import Source, open_data, split
from tonsor.train.data.source import statistics


def every(source: Source) -> np.ndarray:
    return source.take(torch.arange(len(source))).numpy()


def test_real_cifar10_is_as_published(data_dir: Path) -> None:
    data = open_data(f"cifar10:{data_dir / 'cifar10'}")
    assert (len(data.train), len(data.test)) == (50_000, 1_000)
    assert torch.bincount(data.train.labels).tolist() == [5_000] * 10
    assert data.classes[0] == "airplane"
    mean, std = statistics(data.train, 50_000)
    assert mean == pytest.approx((0.4914, 0.4822, 0.4465), abs=5e-5)
    assert std == pytest.approx((0.2470, 0.2435, 0.2616), abs=5e-5)
    assert data.notes == ("'test_batch.bin' holds 1,000 images, the official one 10,000",)
    with pytest.raises(DataError, match=r"test_batch\.bin.*Get the whole set"):
        open_data(f"cifar10:{data_dir / 'cifar10'}", strict=True)
    splits = split(data, validation=5000)
    assert torch.bincount(splits.validation.labels).tolist() == [500] * 10


def test_binary_cifar10_is_read_in_order(tmp_path: Path) -> None:
    rows, labels = cifar10_binary(tmp_path)
    data = open_data(tmp_path)
    assert data.name == "cifar10"
    assert np.array_equal(every(data.train), rows.reshape(-1, 3, 32, 32))
    assert data.train.labels.tolist() == labels.tolist()
    assert data.augment.flip
    assert len(data.notes) == 6


def test_the_folder_around_the_unpacked_one_does_as_well(tmp_path: Path) -> None:
    cifar10_binary(tmp_path / "cifar-10-batches-bin")
    assert len(open_data(f"cifar10:{tmp_path}").train) == 100


def test_of_the_two_labels_of_cifar100_the_fine_one_counts(tmp_path: Path) -> None:
    rows, fine = records(200, 100)
    coarse = np.full(200, 19, np.uint8)
    write_binary(tmp_path / "train.bin", rows, coarse, fine)
    write_binary(tmp_path / "test.bin", rows[:100], coarse[:100], fine[:100])
    names = [f"thing{n}" for n in range(100)]
    (tmp_path / "fine_label_names.txt").write_text("\n".join(names))
    data = open_data(tmp_path)
    assert data.name == "cifar100"
    assert data.classes == tuple(names)
    assert data.train.labels.tolist() == fine.tolist()
    assert np.array_equal(every(data.test), rows[:100].reshape(-1, 3, 32, 32))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("key", [str, str.encode], ids=["text", "bytes"])
def test_pickled_cifar10_is_read_whatever_wrote_it(tmp_path: Path, protocol: int, key: Any) -> None:
    written = []
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        rows, labels = records(20, 10, number)
        rows = np.asfortranarray(rows) if number == 1 else rows
        value = {
            key("batch_label"): key("some"),
            key("labels"): [int(n) for n in labels],
            key("data"): rows,
            key("filenames"): [key(f"{n}.png") for n in range(20)],
        }
        write_pickle(tmp_path / name, value, protocol)
        written.append((rows, labels))
    names = [key(f"kind{n}") for n in range(10)]
    write_pickle(tmp_path / "batches.meta", {key("label_names"): names}, protocol)
    data = open_data(tmp_path)
    rows = np.concatenate([part[0] for part in written[:5]])
    assert np.array_equal(every(data.train), rows.reshape(-1, 3, 32, 32))
    assert data.test.labels.tolist() == written[5][1].tolist()
    assert data.classes == tuple(f"kind{n}" for n in range(10))


def test_pickled_cifar100_is_told_from_cifar10(tmp_path: Path) -> None:
    for name, count in (("train", 200), ("test", 100)):
        rows, labels = records(count, 100)
        value = {"data": rows, "fine_labels": labels.tolist(), "coarse_labels": [0] * count}
        write_pickle(tmp_path / name, value)
    data = open_data(tmp_path)
    assert (data.name, len(data.train), len(data.classes)) == ("cifar100", 200, 100)


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def relabel(path: Path, label: int) -> None:
    path.write_bytes(bytes([label]) + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: (f / "data_batch_3.bin").unlink(),
            r"data_batch_3\.bin' is missing.*30,730,000 bytes.*www\.cs\.toronto\.edu",
        ),
        (
            lambda f: cut(f / "test_batch.bin", 7),
            r"test_batch\.bin' has 61,453 bytes.*no whole number.*cut off",
        ),
        (lambda f: (f / "data_batch_1.bin").write_bytes(b""), "has 0 bytes"),
        (lambda f: relabel(f / "data_batch_2.bin", 10), "label of image 0 is 10"),
        (lambda f: (f / "batches.meta.txt").write_text("a b c"), "names 3 classes.* has 10"),
    ],
)
def test_broken_binary_files_are_named(tmp_path: Path, spoil: Any, said: str) -> None:
    cifar10_binary(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=said):
        open_data(f"cifar10:{tmp_path}")


ROWS, LABELS = records(20, 10)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "holds a list and no dict"),
        ({"data": ROWS}, "has no bytes 'data' with 'labels', but"),
        ({"data": ROWS.astype(np.int64), "labels": LABELS.tolist()}, "has no bytes 'data'"),
        ({"data": ROWS.astype(np.float32), "labels": LABELS.tolist()}, "array of 'f4'"),
        ({"data": ROWS[:, 1:], "labels": LABELS.tolist()}, r"shape \(20, 3071\)"),
        ({"data": ROWS, "labels": LABELS.tolist()[1:]}, "do not fit its labels"),
        ({"data": ROWS, "labels": ["a"] * 20}, "do not fit its labels"),
        ({"data": ROWS, "labels": [2**70] * 20}, "do not fit its labels"),
        ({"data": ROWS, "labels": [11] * 20}, "label of image 0 is 11"),
        ({"data": ROWS, "labels": [-1] * 20}, "label of image 0 is -1"),
        ({"data": ROWS[:0], "labels": []}, "no images"),
    ],
)
def test_a_pickle_with_other_things_in_it_is_refused(tmp_path: Path, value: Any, said: str) -> None:
    write_pickle(tmp_path / "data_batch_1", value, 4)
    with pytest.raises(DataError, match=said):
        open_data(f"cifar10:{tmp_path}")


def test_a_missing_pickle_is_named(tmp_path: Path) -> None:
    write_pickle(tmp_path / "data_batch_1", {"data": ROWS, "labels": LABELS.tolist()})
    with pytest.raises(DataError, match=r"data_batch_2' is missing.*10,000 images"):
        open_data(f"cifar10:{tmp_path}")
