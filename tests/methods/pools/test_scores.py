from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.methods.lfpc.nets import NETS, labelled, made
from tests.refusals import said
from tonsor.criteria.score import score
from tonsor.errors import SelectionError
from tonsor.methods.pools.base import Wanted
from tonsor.methods.pools.scores import ChannelScores

COMBINE = ["mean", "sum", "max", "producer", "normalised"]
STILL = (
    "l1", "l2", "geometric_median", "geometric_median:distance=l1",
    "geometric_median:distance=cosine", "lp:p=3", "median",
)  # fmt: skip


def agree(scores: ChannelScores, anatomy: Any, criteria: Any, combine: Any, **more: Any) -> None:
    names = sorted(scores.scored())
    assert names
    looked = scores.look(names)
    for i, by in enumerate(criteria):
        wanted = score(anatomy, by, combine=combine, **more)
        for name, found in zip(names, looked, strict=True):
            assert found.shape == (len(criteria), anatomy.by_name[name].size)
            torch.testing.assert_close(
                found[i].double(), torch.from_numpy(wanted[name]).double(), rtol=1e-9, atol=1e-11
            )


@pytest.mark.parametrize("combine", COMBINE)
@pytest.mark.parametrize("name", sorted(NETS.keys() - {"shortcut B"}))
def test_they_are_those_of_score_as_the_weights_are_now(name: str, combine: Any) -> None:
    net, anatomy = made(name)
    scores = ChannelScores(anatomy, Wanted(STILL, combine=combine))
    assert scores.ready
    agree(scores, anatomy, STILL, combine)
    before = scores.look(sorted(scores.scored()))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.rand_like(parameter))
    agree(scores, anatomy, STILL, combine)
    after = scores.look(sorted(scores.scored()))
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_float32_is_near_enough() -> None:
    _, anatomy = made("resnet20", torch.float32)
    scores = ChannelScores(anatomy, Wanted(STILL, combine="producer"))
    looked = scores.look([g.name for g in anatomy.prunable])
    for i, by in enumerate(STILL):
        wanted = score(anatomy, by, combine="producer")
        for group, found in zip(anatomy.prunable, looked, strict=True):
            other = torch.from_numpy(wanted[group.name]).double()
            torch.testing.assert_close(found[i].double(), other, rtol=1e-6, atol=1e-6)


def test_others_keep_their_places_among_those_of_weights() -> None:
    _, anatomy = made("normed")
    batches, criteria = labelled(2), ("l1", "apoz", "l2")
    scores = ChannelScores(anatomy, Wanted(criteria, combine="mean", batches=batches))
    agree(scores, anatomy, criteria, "mean", batches=batches)


def test_gradients_of_training_are_waited_for() -> None:
    net, anatomy = made("normed")
    scores = ChannelScores(anatomy, Wanted(("taylor_weight", "l1"), combine="mean"))
    assert not scores.ready
    batches = labelled(2)
    net.eval()
    for images, labels in batches:
        net.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        scores.see()
    assert scores.ready
    agree(scores, anatomy, ("taylor_weight", "l1"), "mean", batches=batches)


def test_chance_is_drawn_anew() -> None:
    _, anatomy = made("resnet20")
    scores = ChannelScores(anatomy, Wanted(("random", "l1")))
    names = [g.name for g in anatomy.prunable]
    first, second = scores.look(names), scores.look(names)
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, second, strict=True))
    assert all(a[0].unique().numel() == a.shape[1] for a in first)


def test_what_is_no_criterion_is_refused() -> None:
    _, anatomy = made("normed")
    told = said(SelectionError, lambda: ChannelScores(anatomy, Wanted(("l3",))))
    assert "no criterion is called 'l3'" in told
