"""Every image once each epoch, the same for any number of processes, from any step on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train_data.sets import numbered, which
from tonsor.errors import DataError
from tonsor.train.data import Augment, Batches, Subset

PLAIN: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}


@given(
    count=st.integers(1, 400),
    size=st.integers(1, 70),
    epoch=st.integers(0, 5),
    seed=st.integers(-(2**60), 2**60),
)
def test_every_image_comes_once_each_epoch(count: int, size: int, epoch: int, seed: int) -> None:
    source = numbered(count)
    batches = Batches(source, size=size, shuffle=True, seed=seed, **PLAIN)
    got = list(batches.epoch(epoch))
    assert len(got) == len(batches)
    seen = [index for images, _ in got for index in which(images)]
    assert sorted(seen) == list(range(count))
    assert torch.cat([labels for _, labels in got]).tolist() == [i % 3 for i in seen]
    assert [len(labels) for _, labels in got] == [batches.global_size(s) for s in range(len(got))]


@given(
    count=st.integers(1, 60),
    share=st.integers(1, 5),
    world=st.integers(1, 4),
    drop=st.booleans(),
    shuffle=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_processes_together_see_what_one_alone_sees(
    count: int, share: int, world: int, drop: bool, shuffle: bool, epoch: int
) -> None:
    source = numbered(count, (1, 5, 5))

    def batches(rank: int, world: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        made = Batches(
            source, size=size, shuffle=shuffle, seed=7, augment=Augment(2), drop_last=drop,
            rank=rank, world=world, **PLAIN,
        )  # fmt: skip
        assert len(made) == (count // size if drop else -(-count // size))
        return list(made.epoch(epoch))

    alone = batches(0, 1, share * world)
    shared = [batches(rank, world, share * world) for rank in range(world)]
    assert all(len(one) == len(alone) for one in shared)
    for whole, *parts in zip(alone, *shared, strict=True):
        for kind in (0, 1):
            assert torch.equal(torch.cat([part[kind] for part in parts]), whole[kind])
        sizes = [len(part[1]) for part in parts]
        assert max(sizes) - min(sizes) <= (0 if len(whole[1]) == share * world else 1)


@given(count=st.integers(1, 50), size=st.integers(1, 8), data=st.data())
def test_resuming_at_a_step_gives_the_rest_of_the_epoch(
    count: int, size: int, data: st.DataObject
) -> None:
    batches = Batches(numbered(count), size=size, shuffle=True, seed=3, augment=Augment(1), **PLAIN)
    start = data.draw(st.integers(0, len(batches)))
    whole = list(batches.epoch(2))[start:]
    rest = list(batches.epoch(2, start))
    assert len(rest) == len(whole)
    for (images, labels), (wanted, wanted_labels) in zip(rest, whole, strict=True):
        assert torch.equal(images, wanted)
        assert torch.equal(labels, wanted_labels)


def test_epochs_and_seeds_and_steps_differ() -> None:
    source = numbered(64)

    def order(epoch: int, seed: int) -> list[int]:
        batches = Batches(source, size=16, shuffle=True, seed=seed, **PLAIN)
        return [i for images, _ in batches.epoch(epoch) for i in which(images)]

    orders = {tuple(order(epoch, seed)) for epoch in range(3) for seed in range(3)}
    assert len(orders) == 9
    same = numbered(1, (1, 9, 9))
    four = Batches(
        Subset(same, torch.zeros(40, dtype=torch.int64)),
        size=10, shuffle=False, seed=0, augment=Augment(4), **PLAIN,
    )  # fmt: skip
    crops = [images for images, _ in four.epoch(0)] + [images for images, _ in four.epoch(1)]
    assert not any(torch.equal(a, b) for i, a in enumerate(crops) for b in crops[:i])


def test_without_shuffling_the_order_is_that_of_the_source() -> None:
    batches = Batches(numbered(10), size=4, shuffle=False, seed=0, **PLAIN)
    assert [i for images, _ in batches.epoch(5) for i in which(images)] == list(range(10))


def test_no_global_generator_is_read_or_moved() -> None:
    batches = Batches(numbered(20), size=4, shuffle=True, seed=0, augment=Augment(2), **PLAIN)
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), repr(np.random.get_state())
    first = list(batches.epoch(0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]
    torch.manual_seed(99)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, batches.epoch(0), strict=True))


def test_channels_last_and_dtype_change_nothing_else() -> None:
    source = numbered(12, (3, 8, 8))
    common: dict[str, Any] = {"size": 5, "shuffle": True, "seed": 1, "augment": Augment(3)}
    numbers: dict[str, Any] = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    plain = Batches(source, **common, **numbers)
    last = Batches(source, channels_last=True, **common, **numbers)
    half = Batches(source, dtype=torch.float16, **common, **numbers)
    for (a, _), (b, _), (c, _) in zip(plain.epoch(0), last.epoch(0), half.epoch(0), strict=True):
        assert torch.equal(a, b)
        assert b.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(a.half(), c)


class Slow:
    """A source that has to read, and that knows how far ahead it was asked."""

    in_memory = False

    def __init__(self, count: int) -> None:
        self.memory = numbered(count)
        self.labels, self.classes, self.shape = (
            self.memory.labels, self.memory.classes, self.memory.shape,
        )  # fmt: skip
        self.asked = 0

    def __len__(self) -> int:
        return len(self.memory)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        if self.asked == 4:
            message = "the fourth"
            raise DataError(message)
        return self.memory.take(indices)


def test_a_source_that_reads_is_read_one_batch_ahead_and_gives_the_same() -> None:
    slow = Slow(8)
    common: dict[str, Any] = {"size": 3, "shuffle": True, "seed": 0, "augment": Augment(1)}
    pairs = zip(
        Batches(slow, **common, **PLAIN).epoch(1),
        Batches(slow.memory, **common, **PLAIN).epoch(1),
        strict=True,
    )
    for (images, labels), (wanted, wanted_labels) in pairs:
        assert torch.equal(images, wanted)
        assert torch.equal(labels, wanted_labels)
    assert slow.asked == 3


def test_what_goes_wrong_while_reading_ahead_is_raised_where_it_is_used() -> None:
    with pytest.raises(DataError, match="the fourth"):
        list(Batches(Slow(20), size=2, shuffle=False, seed=0, **PLAIN).epoch(0))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size=0"),
        ({"size": 5, "world": 2}, "shared out equally among 2"),
        ({"rank": 2, "world": 2}, "is no process"),
        ({"rank": -1}, "is no process"),
        ({"world": 0}, "is no process"),
        ({"mean": (0.0, 0.0)}, "mean has 2 channels, but the images have 1"),
        ({"std": (0.0,)}, "above zero"),
    ],
)
def test_batches_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    options: dict[str, Any] = {"size": 4, "shuffle": True, "seed": 0, **PLAIN} | wrong
    with pytest.raises(DataError, match=said):
        Batches(numbered(8), **options)


@pytest.mark.parametrize("start", [-1, 3])
def test_a_start_outside_of_the_epoch_is_refused_at_once(start: int) -> None:
    batches = Batches(numbered(8), size=4, shuffle=True, seed=0, **PLAIN)
    with pytest.raises(DataError, match="outside of an epoch of 2 steps"):
        batches.epoch(0, start)


def test_an_empty_source_has_no_steps() -> None:
    empty = Subset(numbered(3), torch.zeros(0, dtype=torch.int64))
    assert list(Batches(empty, size=4, shuffle=True, seed=0, **PLAIN).epoch(0)) == []


@pytest.mark.parametrize("channels_last", [False, True])
def test_all_work_is_on_the_device(channels_last: bool) -> None:
    # Tensors without values refuse to be mixed with those of the CPU, as those of a GPU would.
    batches = Batches(
        numbered(5, (3, 8, 8)), size=2, mean=(0.5,) * 3, std=(0.5,) * 3, shuffle=True, seed=0,
        augment=Augment(2), device="meta", channels_last=channels_last,
    )  # fmt: skip
    for images, labels in batches.epoch(0):
        assert images.device.type == labels.device.type == "meta"
        assert images.shape[1:] == (3, 8, 8)
