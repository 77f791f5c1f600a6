"""Runs that take a moment: handwritten digits, a small net, a short recipe."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tonsor.train import Recipe, open_data, split
from tonsor.train.data import Splits


class Net(nn.Module):
    """A convolution with or without BatchNorm, dropout (which draws), and a classifier."""

    def __init__(self, norm: bool = True, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(8 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = nn.functional.max_pool2d(x, 2)
        return self.linear(self.dropout(x.flatten(1)))


def net(norm: bool = True, dropout: float = 0.1, seed: int = 0) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(norm, dropout)


def digits(limit: int = 200) -> Splits:
    return split(open_data("digits"), validation=100, limit=limit)


SHORT = Recipe(epochs=3, batch=32, lr=0.05, steps=((2, 0.1),), ema=0.9, label_smoothing=0.1)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models have the same state, bit for bit."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
