"""An output that is zero but for rounding must not be compared relative to itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tonsor


class Balanced(nn.Module):
    """The second output is zero by construction: one thing, computed in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.up(x).tanh()
        z = self.down(y)
        return z, z - self.down.bias - (y[:, None] * self.down.weight).sum(-1)


def test_rounding_around_zero_is_no_difference() -> None:
    model, x = Balanced(), torch.randn(2, 5)
    plan = tonsor.plan(tonsor.inspect(model, x), "params=50%")
    plan.apply(model)
