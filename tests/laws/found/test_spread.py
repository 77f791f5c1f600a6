"""Operators whose operands are spread over each other, or written into each other."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor


class Angles(nn.Module):
    """The angle between every place and each of a few learned points."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(4, 3)
        self.points = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.cosine_similarity(self.up(x).unsqueeze(-2), self.points, dim=-1))


class Written(nn.Module):
    """The first channels, or the last ones, are written over."""

    def __init__(self, start: int | None, end: int | None) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 3)
        self.over = nn.Linear(5, 4)
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        over = self.over(x)
        start = None if self.start is None else -over.shape[1]
        return self.down(y.slice_scatter(over, 1, start, None if start else over.shape[1]))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (Angles(), {"points[1]", "points[0]"}),
        (Written(None, 4), {"over.weight[0]", "up.weight[0].1"}),
        (Written(-4, None), {"over.weight[0]", "up.weight[0].0"}),
    ],
)
def test_every_width_is_free(model: nn.Module, names: set[str]) -> None:
    x = torch.randn(2, 5)
    anatomy = tonsor.inspect(model, x)
    assert {g.name for g in anatomy.prunable} == names
    tonsor.plan(anatomy, "params=50%", floor=1).apply(model)
