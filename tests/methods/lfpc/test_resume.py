"""A search that is stopped and gone on with is, bit for bit, the one that was not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import tonsor
from tests.methods.lfpc.pictures import (
    begun,
    drive,
    learned,
    looks,
    made,
    masks,
    other,
    pictures,
    sgd,
)
from tests.refusals import said
from tests.train.small import digits
from tonsor.errors import CheckpointError
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.train import Batches
from tonsor.train.checkpoint import read_state, write_state

FAST = Search(lr=0.1)


def shuffled() -> Batches:
    splits = digits(96)
    return Batches(
        splits.train, size=20, mean=splits.mean, std=splits.std, shuffle=True, seed=3,
        augment=splits.augment,
    )  # fmt: skip


WAYS: dict[str, dict[str, Any]] = {
    "soft": {"search": FAST},
    "straight": {"search": FAST.but(masks="straight")},
    "stripes": {"search": FAST, "family": "stripes"},
    "columns": {"search": FAST, "family": "columns"},
    "two of them": {"search": FAST.but(among=2)},
    "turns, refresh": {"search": FAST.but(turns="rates first", refresh=4)},
    "gradients": {"search": FAST.but(refresh=3), "criteria": ["l2", "taylor_weight"]},
    "random": {"search": FAST, "choice": "random"},
    "shuffled": {"search": FAST, "batches": shuffled()},
    "maps": {"search": FAST, "criteria": ["l2", "apoz"], "score_batches": other(1)},
}


def odds(method: LearnedCriteria) -> tuple[list[float], ...]:
    sampler = method.sampler
    return sampler.theta.flatten().tolist(), sampler.beta.flatten().tolist()


@pytest.mark.parametrize("stop", [0, 1, 7, 15])
@pytest.mark.parametrize("way", WAYS)
def test_a_search_goes_on_as_if_it_had_not_been_stopped(way: str, stop: int, tmp_path: Any) -> None:
    data = pictures(18)
    net, whole = begun(**WAYS[way])
    drive(net, whole, data)
    assert whole.over

    ended, first = begun(**WAYS[way])
    optimizer = drive(ended, first, data[:stop])
    again, second = begun(at=4, **WAYS[way])
    again.load_state_dict(ended.state_dict())
    moving = sgd(again)
    moving.load_state_dict(optimizer.state_dict())
    write_state(tmp_path / "state", first.state_dict())
    second.load_state_dict(read_state(tmp_path / "state"))
    assert second.over == (stop == 15)
    for mine, theirs in zip(masks(again).values(), masks(ended).values(), strict=True):
        assert torch.equal(mine.drawn.expand_as(theirs.drawn), theirs.drawn)
        assert torch.equal(mine.kept.expand_as(theirs.kept), theirs.kept)
        assert not mine.drawn.requires_grad
    assert second.history == first.history
    drive(again, second, data[stop:], optimizer=moving, first=stop)
    assert odds(second) == odds(whole)
    assert second.history == whole.history
    for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert second.finish() == whole.finish()


def test_a_state_may_be_taken_after_every_step() -> None:
    """And none of them changes when the search goes on."""
    net, method = begun(search=FAST)
    data, taken = pictures(14), list[Any]()
    drive(net, method, data, watch=lambda _: taken.append(_told(method)))
    for step in (0, 5, 10, 13):
        again, second = begun(search=FAST)
        drive(again, second, data[: step + 1])
        assert _told(second)[1:] == taken[step][1:]
        assert torch.equal(_told(second)[0], taken[step][0])


def _told(method: LearnedCriteria) -> tuple[Any, ...]:
    state = method.state_dict()
    return state["sampler"]["theta"], state["feed"], [d.tolist() for d in state["drawn"]]


@pytest.mark.parametrize("kind", ["residual", "chain"])
@pytest.mark.parametrize("family", ["channels", "stripes", "columns"])
@pytest.mark.parametrize("masked", ["soft", "straight"])
def test_a_search_that_is_released_leaves_the_weights_as_they_are(
    kind: str, family: Any, masked: Any
) -> None:
    net, anatomy = made(kind)
    before, clean = looks(net), made(kind)[0]
    method = learned(net, anatomy, family=family, search=FAST.but(masks=masked))
    drive(net, method, pictures(5))
    weights = {n.replace("parametrizations.", "").replace(".original", ""): t.clone()
               for n, t in net.state_dict().items()}  # fmt: skip
    method.release()
    assert looks(net) == before
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in clean.named_parameters()]
    assert not masks(net)
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    method.release()  # for a second time it does nothing
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    learned(net, anatomy, family=family).release()


def test_a_search_that_was_decided_is_released_with_what_is_gone_at_zero() -> None:
    net, method = begun(search=FAST)
    drive(net, method, pictures(13))
    assert method.decided is not None
    gone = ~method.decided.kept[1]
    method.release()
    assert bool((net.norm1.weight[gone] == 0).all())
    assert bool((net.norm1.weight[~gone] != 0).all())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "macs=40%"}, "budget="),
        ({"budget": "params=50%"}, "budget="),
        ({"family": "stripes"}, "family='stripes'"),
        ({"criteria": ["l1", "l2"]}, "criteria="),
        ({"criteria": ["l2", "l1", "geometric_median"]}, "criteria="),
        ({"steps": 13}, "steps='13'"),
        ({"search": Search(lr=0.2)}, "search="),
        ({"choice": "random"}, "choice='random'"),
        ({"choice": {"*": "l2"}}, "choice="),
        ({"combine": "mean"}, "combine='mean'"),
        ({"seed": 5}, "seed='5'"),
    ],
)
def test_a_search_of_other_settings_is_not_gone_on_from(
    options: dict[str, Any], words: str
) -> None:
    state = begun(**options)[1].state_dict()
    net, mine = begun()
    weights, before = copy.deepcopy(net.state_dict()), odds(mine)
    assert f"begun with {words}" in said(CheckpointError, lambda: mine.load_state_dict(state))
    assert all(torch.equal(t, weights[n]) for n, t in net.state_dict().items())
    assert odds(mine) == before


def test_a_search_after_another_plan_or_of_other_sites_is_not_gone_on_from() -> None:
    net, anatomy = made()
    earlier = tonsor.plan(anatomy, "macs=70%")
    method = learned(net, anatomy, after=earlier)
    state = method.state_dict()
    method.release()
    words = said(CheckpointError, lambda: learned(net, anatomy).load_state_dict(state))
    assert "begun with after='" in words


def test_a_search_of_other_sites_is_not_gone_on_from() -> None:
    state = begun(keep=["stem"])[1].state_dict()
    words = said(CheckpointError, lambda: begun()[1].load_state_dict(state))
    assert "begun with sites='first.weight[0]', now it is 'stem.weight[0], first" in words
