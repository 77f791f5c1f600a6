"""Splits are by seed, in proportion, disjoint, and leave the test images alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train_data.sets import numbered
from tonsor.errors import DataError
from tonsor.train.data import Data, Memory, Subset, open_data, split
from tonsor.train.data.source import statistics
from tonsor.train.data.split import hold_out, stratified


def data(train: Memory, **more: Any) -> Data:
    common: dict[str, Any] = {
        "name": "some",
        "test": numbered(5, seed=9),
        "mean": (0.5,),
        "std": (0.5,),
    }
    return Data(train=train, **common, **more)


def rows(source: object) -> set[int]:
    assert isinstance(source, Subset)
    return set(source.rows.tolist())


@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**31),
    part=st.floats(0, 1),
)
def test_each_class_gives_its_share(sizes: list[int], seed: int, part: float) -> None:
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    count = int(part * sum(max(0, size - 1) for size in sizes))
    drawn = stratified(labels, count, seed)
    assert len(drawn) == len(set(drawn.tolist())) == count
    taken = torch.bincount(labels[drawn], minlength=len(sizes)).tolist()
    for size, got in zip(sizes, taken, strict=True):
        assert got <= max(0, size - 1), "nothing of a class was left"
    exact = [size * count / max(1, sum(sizes)) for size in sizes]
    if all(share <= size - 1 for share, size in zip(exact, sizes, strict=True) if size):
        assert all(abs(a - b) < 1 for a, b in zip(taken, exact, strict=True))


def test_the_parts_are_disjoint_and_whole_and_repeatable() -> None:
    every = data(numbered(100))
    splits = split(every, validation=0.2, seed=4)
    assert len(splits.validation) == 20
    assert rows(splits.train) | rows(splits.validation) == set(range(100))
    assert not rows(splits.train) & rows(splits.validation)
    again = split(every, validation=20, seed=4)
    assert rows(again.validation) == rows(splits.validation)
    assert rows(split(every, validation=20, seed=5).validation) != rows(splits.validation)
    assert splits.test is every.test


def test_a_limit_thins_only_what_is_learnt_from() -> None:
    every = data(numbered(99))
    whole, short = split(every, validation=9), split(every, validation=9, limit=30)
    assert rows(short.validation) == rows(whole.validation)
    assert rows(short.train) < rows(whole.train)
    assert torch.bincount(short.train.labels).tolist() == [10, 10, 10]
    assert len(split(every, validation=9, limit=1000).train) == 90


def test_a_validation_set_that_is_there_is_kept() -> None:
    mine = numbered(7)
    splits = split(data(numbered(30), validation=mine), validation=0.5)
    assert splits.validation is mine
    assert len(splits.train) == 30


def test_without_validation_all_is_learnt_from() -> None:
    splits = split(data(numbered(30)), validation=0)
    assert (len(splits.train), len(splits.validation)) == (30, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation": 1.0}, "is no fraction; write 1 for images"),
        ({"validation": -1}, "fraction below 1 or a number"),
        ({"validation": float("nan")}, "fraction below 1 or a number"),
        ({"validation": True}, "fraction below 1 or a number"),
        ({"validation": 28}, "28 images were asked for, but at most 27"),
        ({"limit": 0}, "leaves nothing to learn from"),
    ],
)
def test_a_split_that_leaves_nothing_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        split(data(numbered(30)), **options)


def test_a_fifth_is_held_out_where_there_is_no_test() -> None:
    train, test, note = hold_out(numbered(50), "mine")
    assert (len(train), len(test)) == (40, 10)
    assert not rows(train) & rows(test)
    assert "10 of 50" in note
    with pytest.raises(DataError, match="'mine' has no test images, and 3 of 3 classes"):
        hold_out(numbered(3), "mine")


def test_the_digits_are_all_there_and_their_test_images_are_fixed() -> None:
    digits = open_data("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert torch.bincount(digits.test.labels).tolist() == [36] * 10
    assert not rows(digits.train) & rows(digits.test)
    assert len(rows(digits.train) | rows(digits.test)) == 1797
    images = digits.train.take(torch.arange(len(digits.train)))
    assert images.max() == 240
    assert not images.remainder(15).any()
    # The sum of all pixels of the published set, of which these are the values times 15.
    tested = digits.test.take(torch.arange(360))
    assert int(images.sum() + tested.sum()) == 15 * 561718
    assert "CC BY 4.0" in digits.licence


def test_statistics_are_those_of_all_pixels() -> None:
    source = numbered(600, (3, 5, 5))
    mean, std = statistics(source)
    pixels = source.images.double() / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    flat = Memory(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(3).long(), ("a",))
    assert statistics(flat) == ((pytest.approx(0.2),), (1.0,))


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2).long(), "wanted is uint8"),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2).long(), "wanted is uint8"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3).long(), "2 images, but"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2), "whole numbers"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2]), "2 at index 1"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([-1, 0]), "-1 at index 0"),
    ],
)
def test_images_and_labels_that_do_not_belong_together_are_refused(
    images: torch.Tensor, labels: torch.Tensor, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        Memory(images, labels, ("a", "b"))
