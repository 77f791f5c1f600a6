from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.refusals import said
from tests.train.small import digits
from tonsor.errors import SelectionError
from tonsor.methods.lfpc.feed import Feed
from tonsor.train.data import Batches


class Numbers:
    """As many minibatches as it is long, numbered; it counts how often it is begun."""

    def __init__(self, length: int) -> None:
        self.length, self.begun = length, 0

    def __iter__(self) -> Any:
        self.begun += 1
        return iter(range(self.length))


@given(st.integers(1, 7), st.integers(0, 30), st.booleans())
def test_minibatches_come_in_order_for_ever(length: int, taken: int, as_list: bool) -> None:
    numbers = Numbers(length)
    feed = Feed(list(numbers) if as_list else numbers)
    numbers.begun = 0
    assert [feed.next() for _ in range(taken)] == [i % length for i in range(taken)]
    assert feed.epoch * length + feed.place == taken
    if not as_list:
        assert numbers.begun == -(-taken // length)


@given(st.integers(1, 7), st.integers(0, 20), st.integers(1, 20))
def test_it_goes_on_from_anywhere(length: int, before: int, after: int) -> None:
    feed, other = Feed(Numbers(length)), Feed(Numbers(length))
    for _ in range(before):
        feed.next()
    other.next()  # wherever it was
    other.go_to(feed.epoch, feed.place)
    assert [other.next() for _ in range(after)] == [feed.next() for _ in range(after)]


def images(count: int = 5) -> Batches:
    splits = digits()
    return Batches(
        splits.train, size=len(splits.train) // count, mean=splits.mean, std=splits.std,
        shuffle=True, seed=3,
    )  # fmt: skip


def test_images_are_shuffled_anew_and_can_be_gone_on_with() -> None:
    batches = images()
    each = len(list(batches.epoch(0)))
    feed = Feed(batches)
    seen: list[tuple[Tensor, Tensor]] = [feed.next() for _ in range(2 * each + 1)]
    wanted = [b for epoch in range(3) for b in batches.epoch(epoch)]
    for mine, other in zip(seen, wanted, strict=False):
        assert torch.equal(mine[0], other[0])
        assert torch.equal(mine[1], other[1])
    assert not torch.equal(seen[0][0], seen[each][0])
    for taken in (1, each - 1, each, each + 2):
        first, again = Feed(batches), Feed(images())
        for _ in range(taken):
            first.next()
        again.go_to(first.epoch, first.place)
        assert torch.equal(again.next()[0], seen[taken][0])


@pytest.mark.parametrize("empty", [[], (), {}])
def test_nothing_is_refused(empty: Any) -> None:
    assert "at least one minibatch" in said(SelectionError, lambda: Feed(empty).next())


def test_what_is_spent_after_one_turn_is_refused() -> None:
    assert "as a list or a loader" in said(SelectionError, lambda: Feed(i for i in range(3)))
    assert "a generator is spent" in said(SelectionError, lambda: Feed(iter([1, 2])))
