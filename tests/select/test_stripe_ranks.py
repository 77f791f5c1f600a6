"""Stripes that an earlier plan has removed do not count when layers are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tonsor
from tonsor.criteria.score import Scores
from tonsor.families.stripes.layers import find_stripes
from tonsor.select.fibres.make import plan_stripes, ranked


def test_gone_stripes_change_neither_mean_nor_share() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.Conv2d(4, 4, 3))
    layers = find_stripes(tonsor.inspect(net, torch.randn(1, 2, 8, 8)))
    rng = np.random.default_rng(0)
    scores = Scores({x.name: rng.random(x.size) for x in layers}, "mine")
    start = {x.name: rng.random((x.filters, 9)) < 0.5 for x in layers}
    for name, there in start.items():
        left, mine = there.reshape(-1), scores[name]
        mean = ranked(layers, scores, "normalised", start)[name]
        assert mean[left].mean() == pytest.approx(1)
        assert mean * mine[left].mean() == pytest.approx(mine)
        share = ranked(layers, scores, "per_layer", start)[name]
        assert sorted(share[left]) == pytest.approx(np.arange(left.sum()) / left.sum())
        assert (np.argsort(share[left]) == np.argsort(mine[left])).all()


def test_going_on_does_not_spare_layers_that_lost_small_stripes_before() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.Conv2d(16, 16, 3))
    anatomy = tonsor.inspect(net, torch.randn(1, 8, 8, 8))
    low_and_high = np.tile([0.01, 0.01, 0.01, 0.01, 1.0, 1.1, 1.2, 1.3, 1.4], 16)
    high = np.tile([1.0, 1.0, 1.1, 1.1, 1.2, 1.2, 1.3, 1.4, 1.4], 16)
    scores = Scores({"0": low_and_high, "1": high}, "mine")
    first = plan_stripes(anatomy, threshold=0.5, by=scores, rank="global")
    assert list(first.stripes) == ["0.weight"]
    then = plan_stripes(anatomy, threshold=0.9, by=scores, after=first)
    # The mean of what is left is 1.2 in both, so that both lose what is below 1.08.
    assert then.stripes["0.weight"].left == 16 * 4
    assert then.stripes["1.weight"].left == 16 * 7
