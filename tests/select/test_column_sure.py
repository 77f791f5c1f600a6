"""Channels follow dead columns only if the model computes the same without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores
from tonsor.families import following
from tonsor.families.columns.layers import find_columns
from tonsor.types import Leaf


class Read(nn.Module):
    """Channels that a convolution reads, and, if it is so, a linear layer too."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        self.twice = twice
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        out = self.head(self.second(h).mean((2, 3)))
        return out + self.other(h.mean((2, 3))) if self.twice else out


def deceived(monkeypatch: pytest.MonkeyPatch, anatomy: Anatomy) -> None:
    """Have everybody believe that nothing but the second convolution reads its inputs."""
    axis = anatomy.axes("second.weight")[1]
    assert isinstance(axis, Leaf)
    monkeypatch.setattr(following, "readers", lambda *_: iter([(axis.name, [("second", axis)])]))


def chosen(anatomy: Anatomy) -> tonsor.Plan:
    """All columns of the first five inputs of the second convolution go."""
    layers = find_columns(anatomy).by_name
    scores = {
        n: np.arange(layers[n].size, dtype=np.float64) + 100 * (n == "first")
        for n in ("first", "second")
    }
    return tonsor.plan_columns(
        anatomy, threshold=44, by=Scores(scores, "made up"), rank="global", quiet=True
    )


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_read_after_all_stays(monkeypatch: pytest.MonkeyPatch, *, twice: bool) -> None:
    torch.manual_seed(0)
    net, x = Read(twice=twice).eval(), torch.randn(2, 3, 8, 8)
    anatomy = tonsor.inspect(net, x)
    deceived(monkeypatch, anatomy)
    plan = chosen(anatomy)
    assert bool(plan.keep) is not twice
    assert bool(plan.made_by["notes"]) is twice
    with torch.no_grad():
        net.second.weight[:, :5] = 0
        torch.testing.assert_close(plan.apply(net)(x), net(x))
