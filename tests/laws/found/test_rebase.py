"""A later plan that needs an attribute mended which the earlier one left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tonsor


class OneByOne(nn.Module):
    """Heads, each of which is treated by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.each = 2, 3
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).view(len(x), self.heads, self.each)
        weights = (y @ y.transpose(1, 2)).softmax(-1)
        return self.down((weights @ y).flatten(1))


@pytest.mark.xfail(strict=True, reason="rebase keeps the mends of the later plan in its own names")
def test_a_later_plan_brings_its_mends_along() -> None:
    model, x = OneByOne(), torch.randn(2, 5)
    heads = tonsor.inspect(model, x)
    assert [g.name for g in heads.prunable] == ["up.weight[0].0"]
    earlier = tonsor.plan(heads, ratios={"up.weight[0].0": 0.5})
    slim = earlier.apply(model)

    each = tonsor.inspect(slim, x, head_dims=True)
    assert [g.name for g in each.prunable] == ["up.weight[0]"]  # of one head, it has another name
    later = tonsor.plan(each, ratios={"up.weight[0]": 0.67})
    slimmer = later.apply(slim)
    assert (slimmer.heads, slimmer.each) == (1, 2)

    at_once = later.rebase(earlier).apply(model)
    assert (at_once.heads, at_once.each) == (1, 2)
