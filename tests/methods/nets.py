"""Small nets, a loop, and what is looked at around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.anatomy import Anatomy, inspect
from tonsor.train.method import Method

Batch = tuple[Tensor, Tensor]


class Residual(nn.Module):
    """Two convolutions beside a shortcut, all with BatchNorm, on pictures of 8 by 8."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.first, self.norm1 = (
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
        )
        self.second, self.norm2 = nn.Conv2d(2 * width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.linear = nn.Linear(16 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        x = x + self.norm2(self.second(self.norm1(self.first(x)).relu()))
        return self.linear(x.relu().flatten(1))


def residual(seed: int = 0) -> tuple[Residual, Anatomy]:
    """A net with its anatomy; its prunable pieces are 12 of the stream and 24 between."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Residual().train()
        for norm in (net.norm, net.norm1, net.norm2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
    return net, inspect(net, torch.zeros(2, 1, 8, 8))


def batches(count: int, seed: int = 0) -> list[Batch]:
    """Minibatches that all are other, the same for one seed."""
    chance = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(16, 1, 8, 8, generator=chance),
            torch.randint(0, 10, (16,), generator=chance),
        )
        for _ in range(count)
    ]


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def drive(
    net: nn.Module,
    method: Method,
    data: Iterable[Batch],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    begin: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    first: int = 0,
    watch: Callable[[int], Any] = lambda step: None,
) -> torch.optim.Optimizer:
    """The loop of `tonsor.train.method`; `watch` is called after each step."""
    optimizer = optimizer or begin(net)
    method.attach(optimizer)
    for step, (images, labels) in enumerate(data, first):
        F.cross_entropy(net(images), labels).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        watch(step)
    return optimizer
