"""What may be given as data, and what is left of it in the model: nothing."""

from __future__ import annotations

import random
from collections import UserDict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import tonsor
from tests.criteria.nets import Small, looked_at, pictures, settled, small
from tests.models import ALL
from tests.models.snapshot import Snapshot
from tonsor.criteria.registry import CRITERIA
from tonsor.criteria.score import Scores, score
from tonsor.criteria.stream import samples_of, taken_apart, untouched
from tonsor.errors import ScoreError
from tonsor.train import open_data
from tonsor.train.data import Batches

KINDS = {c.needs: n for n, c in reversed(CRITERIA.items())}  # one criterion for each need
WITH_DATA = [n for n in KINDS.values() if CRITERIA[n].reads_data]


def same(a: Scores, b: Scores, rtol: float = 1e-9) -> None:
    assert a.values.keys() == b.values.keys()
    for name in a.values:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-15)


# ---------------------------------------------------------------- what may be given


@pytest.mark.parametrize("by", WITH_DATA)
def test_lists_generators_and_loaders(by: str) -> None:
    anatomy, batches = looked_at(small()), pictures(3)
    wanted = score(anatomy, by, batches=batches)
    same(wanted, score(anatomy, by, batches=(b for b in batches)))
    same(wanted, score(anatomy, by, batches=[list(b) for b in batches]))
    x, y = (torch.cat(t) for t in zip(*batches, strict=True))
    same(wanted, score(anatomy, by, batches=DataLoader(TensorDataset(x, y), batch_size=4)))


def test_batches_of_training() -> None:
    source = open_data("digits").train
    net = settled(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)))
    batches = Batches(source, size=50, mean=(0.5,), std=(0.5,), shuffle=True, seed=0)
    anatomy = tonsor.inspect(net, torch.randn(1, 1, 8, 8))
    found = score(anatomy, "taylor_weight", batches=batches, at_most=3)
    wanted = score(anatomy, "taylor_weight", batches=list(islice(batches.epoch(0), 3)))
    same(found, wanted)


def test_a_shuffled_loader_is_shuffled_by_the_seed() -> None:
    anatomy, (x, y) = looked_at(small()), pictures(1, size=12)[0]
    loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True)
    first = score(anatomy, "taylor_gate", batches=loader, at_most=1, seed=1)
    torch.rand(3)
    same(first, score(anatomy, "taylor_gate", batches=loader, at_most=1, seed=1))
    other = score(anatomy, "taylor_gate", batches=loader, at_most=1, seed=2)
    assert other["conv1.weight[0]"].tolist() != first["conv1.weight[0]"].tolist()


def test_no_more_than_were_asked_for() -> None:
    anatomy, batches = looked_at(small()), pictures(3)
    taken = []

    def endless() -> Iterator[Any]:
        while True:
            taken.append(1)
            yield batches[0]

    wanted = score(anatomy, "taylor_gate", batches=batches[:1])
    same(wanted, score(anatomy, "taylor_gate", batches=endless(), at_most=1))
    assert len(taken) == 1
    same(wanted, score(anatomy, "taylor_gate", batches=batches[:1], at_most=9))


@pytest.mark.parametrize("given", [dict, UserDict])
def test_mappings_with_labels(given: type) -> None:
    pytest.importorskip("transformers")
    model, _, kwargs = next(c for c in ALL if c.name == "hf_bert").build()
    batch = given({**kwargs, "labels": torch.tensor([0, 1])})
    anatomy = tonsor.inspect(model, kwargs)
    own = score(anatomy, "taylor_weight", batches=[batch])

    def loss(output: Any, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.logits, labels)

    same(own, score(anatomy, "taylor_weight", batches=[batch], loss=loss), rtol=1e-4)
    same(own, score(anatomy, "taylor_weight", batches=[(kwargs, batch["labels"])]), rtol=1e-4)


def test_losses_of_ones_own() -> None:
    anatomy, batches = looked_at(small()), pictures(2)

    def loss(output: Tensor, target: object) -> Tensor:
        assert target is None
        return output.square().mean()

    blind = [(x, None) for x, _ in batches]
    found = score(anatomy, "taylor_weight", batches=blind, loss=loss)
    zeros = [(x, torch.zeros(4, 4).double()) for x, _ in batches]
    same(found, score(anatomy, "taylor_weight", batches=zeros, loss=F.mse_loss))


@pytest.mark.parametrize("by", ["apoz", "mean_map", "hrank"])
def test_maps_need_no_targets(by: str) -> None:
    anatomy, batches = looked_at(small()), pictures(2)
    same(
        score(anatomy, by, batches=batches),
        score(anatomy, by, batches=[(x, None) for x, _ in batches]),
    )


# ---------------------------------------------------------------- what may not


@pytest.mark.parametrize("by", WITH_DATA)
@pytest.mark.parametrize("minibatches", [0, 1])
def test_nothing_to_score_by(by: str, minibatches: int) -> None:
    empty = [(x[:0], y[:0]) for x, y in pictures(minibatches)]
    with pytest.raises(ScoreError, match="batches is empty"):
        score(looked_at(small()), by, batches=empty)


@pytest.mark.parametrize(
    ("batches", "says"),
    [(3, "iterable of minibatches, got a int"), ("text", "got a str"), ([3], "got a int"),
     ([torch.zeros(2)], "got a Tensor"), ([(1, 2, 3)], "got a tuple"), ([None], "got a NoneType")],
    ids=str,
)  # fmt: skip
def test_what_are_no_minibatches(batches: Any, says: str) -> None:
    with pytest.raises(ScoreError, match=says):
        score(looked_at(small()), "taylor_gate", batches=batches)


@pytest.mark.parametrize("at_most", [0, -1, 1.5])
def test_at_most_is_a_number(at_most: Any) -> None:
    with pytest.raises(ScoreError, match="at_most"):
        score(looked_at(small()), "apoz", batches=pictures(1), at_most=at_most)


@pytest.mark.parametrize("by", WITH_DATA)
def test_nan_in_the_data_is_named(by: str) -> None:
    batches = pictures(2)
    batches[1][0][0, 0, 0, 0] = float("nan")
    with pytest.raises(ScoreError, match="input '0' of minibatch 1 holds NaN"):
        score(looked_at(small()), by, batches=batches)


@pytest.mark.parametrize(
    ("loss", "says"),
    [(lambda o, y: o.sum() * float("nan"), "loss is nan on minibatch 0"),
     (lambda o, y: o.sum() * float("inf"), "loss is -?inf on minibatch 0"),
     (lambda o, y: F.cross_entropy(o, y, reduction="none"), r"one number.*of shape \(4,\)"),
     (lambda o, y: 3.0, "one number.*3.0"), (lambda o, y: None, "one number.*None")],
    ids=["nan", "inf", "vector", "float", "nothing"],
)  # fmt: skip
def test_losses_that_say_nothing(loss: Any, says: str) -> None:
    with pytest.raises(ScoreError, match=says):
        score(looked_at(small()), "taylor_weight", batches=pictures(1), loss=loss)


def test_no_loss_is_guessed() -> None:
    x = pictures(1)[0][0]
    for target in (None, torch.zeros(4, 4), "cat"):
        with pytest.raises(ScoreError, match="no loss is known"):
            score(looked_at(small()), "taylor_weight", batches=[(x, target)])


def test_a_model_that_has_no_values() -> None:
    with torch.device("meta"):
        net = Small()
    with pytest.raises(ScoreError, match="meta device"):
        score(tonsor.inspect(net, torch.zeros(1, 3, 8, 8)), "apoz", batches=pictures(1))


def test_samples_that_can_not_be_taken_apart() -> None:
    class Pairs(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).view(len(x) // 2, 2, 4).sum(1).view(-1, 4) / (len(x) // 2)

    net = settled(Pairs().double())
    x = pictures(1)[0][0]
    with pytest.raises(ScoreError, match="one sample at a time"):
        score(tonsor.inspect(net, x), "fisher", batches=[(x, torch.tensor([0, 1]))])


def test_parts_of_a_minibatch() -> None:
    inputs, target = taken_apart({"a": torch.ones(2, 3), "labels": torch.ones(2)}, None)
    assert target.tolist() == [1, 1]
    assert samples_of(inputs) == 2
    assert samples_of(taken_apart((tonsor.Inputs(torch.tensor(1)), None), None)[0]) == 1


# ---------------------------------------------------------------- what is left as it was


class Restless(Small):
    """A forward that writes wherever it can."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, dtype=torch.float64))
        self.history: list[float] = []
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.history.append(1.0)
        self.last = super().forward(x)
        self.conv1.extra = self.last
        return self.last + 0 * torch.rand(1)


def restless() -> Restless:
    net = settled(Restless().double())
    net.bn1.train()
    net.conv2.weight.requires_grad_(False)
    net.linear.weight.grad = torch.ones_like(net.linear.weight)
    net.linear.register_forward_hook(lambda m, x, out: None)
    net.history.append(0.5)
    return net


@pytest.mark.parametrize("by", KINDS.values())
def test_the_model_is_left_as_it_was(by: str) -> None:
    net = restless()
    anatomy, inputs = looked_at(net), tonsor.Inputs(pictures(1)[0][0])
    before = Snapshot(net, inputs)
    scores = score(anatomy, by, batches=pictures(2) if by in WITH_DATA else None)
    assert not before.changes(net, inputs)
    assert "conv2.weight[0]" in scores.values  # frozen ones are scored as well


class Interrupted(BaseException):
    """Something like Ctrl-C."""


@pytest.mark.parametrize("by", WITH_DATA)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interrupted])
@pytest.mark.parametrize("where", ["data", "loss", "forward"])
def test_also_when_it_is_broken_off(by: str, error: type[BaseException], where: str) -> None:
    net, (batch, *_) = restless(), pictures(1)
    armed = [False]

    def trip(*_: Any) -> None:
        if armed[0]:
            raise error

    net.linear.register_forward_pre_hook(lambda *_: trip() if where == "forward" else None)
    anatomy, inputs = looked_at(net), tonsor.Inputs(batch[0])

    def batches() -> Iterator[Any]:
        yield batch
        armed[0] = True
        if where == "data":
            trip()
        yield batch

    def loss(output: Tensor, target: Tensor) -> Tensor:
        trip()
        return F.cross_entropy(output, target)

    if where == "loss" and CRITERIA[by].needs == "maps":
        pytest.skip("no loss is computed")
    before = Snapshot(net, inputs)
    modes = torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled()
    wanted = ScoreError if where == "forward" and by == "fisher" and error is ValueError else error
    with pytest.raises(wanted):
        score(anatomy, by, batches=batches(), loss=loss if where == "loss" else None)
    assert not before.changes(net, inputs)
    assert modes == (torch.is_grad_enabled(), torch.backends.mha.get_fastpath_enabled())
    assert not torch._C._len_torch_function_stack()


@pytest.mark.parametrize("by", WITH_DATA)
def test_whatever_the_caller_has_switched_on(by: str) -> None:
    net, batches = small(dtype=torch.float32), pictures(2, dtype=torch.float32)
    anatomy = looked_at(net, batches[0][0])
    wanted = score(anatomy, by, batches=batches)
    with torch.no_grad():
        same(wanted, score(anatomy, by, batches=batches))
    with torch.inference_mode():
        same(wanted, score(anatomy, by, batches=[(x + 0, y + 0) for x, y in batches]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(wanted, score(anatomy, by, batches=batches))
    net.train()
    same(wanted, score(anatomy, by, batches=batches))


@pytest.mark.parametrize("by", WITH_DATA)
def test_a_frozen_model_is_scored_and_stays_frozen(by: str) -> None:
    net, batches = small(), pictures(2)
    wanted = score(looked_at(net), by, batches=batches)
    net.requires_grad_(False)
    same(wanted, score(looked_at(net), by, batches=batches))
    assert not any(p.requires_grad for p in net.parameters())


def test_random_numbers_of_others_go_on_as_they_would() -> None:
    anatomy, batches = looked_at(small()), pictures(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]
    for by in CRITERIA:
        score(anatomy, by, batches=batches if CRITERIA[by].reads_data else None)
    assert torch.get_rng_state().equal(states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[union-attr]
    assert random.getstate() == states[2]


def test_the_same_for_whoever_looks_at_the_model_itself() -> None:
    net, x = restless(), pictures(1)[0][0]
    net.seen += 2
    inputs = tonsor.Inputs(x)
    before = Snapshot(net, inputs)
    with untouched(net, gradients=True):
        assert not any(m.training for m in net.modules())
        assert all(p.requires_grad for p in net.parameters())
        net.seen = torch.full((3,), 7.0)
        net.history = []
        net.last = x
        net.linear.fresh = x
    assert not before.changes(net, inputs)


def test_what_a_run_remembers_does_not_reach_the_next() -> None:
    class Caching(Small):
        def __init__(self) -> None:
            super().__init__()
            self.cache: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if "gain" not in self.cache:
                self.cache["gain"] = self.linear.weight.sum().cos()
            return super().forward(x) * self.cache["gain"]

    net = settled(Caching().double())
    for by in WITH_DATA:
        score(looked_at(net), by, batches=pictures(2))
    assert not net.cache
