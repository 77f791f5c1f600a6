"""A slim model that returns NaN where the original did not is not right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tonsor


class Spread(nn.Module):
    """The variance over one channel is 0 / 0."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(x + x.var(-1, keepdim=True))


def test_a_cut_never_makes_a_model_return_nan() -> None:
    model, x = Spread(), torch.randn(2, 5)
    assert model(x).isfinite().all()
    try:
        slim, _ = tonsor.prune(model, x, budget="params=25%", floor=1)
    except tonsor.TonsorError:
        return
    assert slim(x).isfinite().all()
