"""Small nets for stripes that are learned, a loop, and what is looked at around it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.nets import Batch, Residual, batches
from tests.methods.nets import drive as driven
from tonsor.anatomy import Anatomy, inspect
from tonsor.methods.swp import FilterSkeleton, StripeLasso


class Chain(nn.Module):
    """A small VGG: three convolutions, each with a BatchNorm."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 6, 3, padding=1, bias=bias), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 6, 3, bias=bias)
        self.bn3, self.linear = nn.BatchNorm2d(6), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = self.bn3(self.conv3(self.bn2(self.conv2(x)).relu()))
        return self.linear(x.relu().mean((2, 3)))


def made(kind: str = "residual", seed: int = 0, double: bool = False) -> tuple[Any, Anatomy]:
    """A net for pictures of 8 by 8 that trains, with its anatomy."""
    builds: dict[str, Callable[[], nn.Module]] = {
        "residual": lambda: _without_bias(Residual(6)), "chain": Chain,
        "residual bias": lambda: Residual(6), "chain bias": lambda: Chain(bias=True),
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = builds[kind]().train()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    net = net.double() if double else net
    return net, inspect(net, torch.zeros(2, 1, 8, 8, dtype=next(net.parameters()).dtype))


def _without_bias(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_parameter("bias", None)
    return net


def pictures(count: int, seed: int = 0, double: bool = False) -> list[Batch]:
    """Minibatches that all are other."""
    return [(x.double() if double else x, y) for x, y in batches(count, seed)]


def sgd(net: nn.Module, lr: float = 0.05, decay: float = 1e-4) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=decay)


drive = partial(driven, begin=sgd)


def put(method: FilterSkeleton, values: dict[str, Tensor] | None = None, seed: int = 0) -> None:
    """Give the skeletons other numbers, at random unless they are said."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer, numbers in zip(method.course.layers, method.skeletons, strict=True):
            if values is None:
                numbers.copy_(0.05 + torch.rand(numbers.shape, generator=chance))
            elif layer.name in values:
                numbers.copy_(values[layer.name])


def gone(method: FilterSkeleton | StripeLasso) -> dict[str, set[int]]:
    """Which stripes of each layer are gone, by their numbers."""
    return {n: set((~m).reshape(-1).nonzero()[0].tolist()) for n, m in method.course.masks.items()}
