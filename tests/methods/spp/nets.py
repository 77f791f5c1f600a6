"""Nets that lose pieces by chance, a loop, and what is looked at around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.families.column_nets import NETS as OF_COLUMNS
from tests.methods.swp.nets import drive, made, pictures, sgd
from tonsor.methods.pools.drawn import DrawnMask
from tonsor.methods.spp import ByChance

__all__ = ["NETS", "chances", "drive", "gone", "looks", "made", "masks", "pictures", "sgd"]


class Inverted(nn.Module):
    """A depthwise convolution between two of 1×1, all with BatchNorm, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.wide, self.norm1 = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.deep = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.norm2, self.norm3 = nn.BatchNorm2d(12), nn.BatchNorm2d(8)
        self.narrow, self.fc = nn.Conv2d(12, 8, 1, bias=False), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.norm2(self.deep(self.norm1(self.wide(x)).relu())).relu()
        return self.fc((x + self.norm3(self.narrow(y))).mean((2, 3)))


class Tied(nn.Module):
    """Two convolutions with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.two, self.fc = nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6 * 4, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(self.stem(x).relu()).relu()).relu()
        return self.fc(F.adaptive_avg_pool2d(x, 2).flatten(1))


class Bare(nn.Module):
    """A BatchNorm without scale and shift."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6, affine=False)
        self.two, self.fc = nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.norm(self.one(x)).relu()).relu().mean((2, 3)))


class Mixer(nn.Module):
    """A small transformer, of blocks that end in a linear layer and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
            for _ in range(4)
        )
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean(1))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **OF_COLUMNS,
    "inverted": (Inverted, (3, 8, 8)),
    "tied": (Tied, (3, 8, 8)),
    "bare": (Bare, (3, 8, 8)),
    "mixer": (Mixer, (3, 16, 16)),
    "convnet": (lambda: tonsor.zoo.build("convnet", width=0.25), (3, 32, 32)),
    "vgg16 with bias": (lambda: tonsor.zoo.build("vgg16", width=0.1, bias=True), (3, 32, 32)),
    "shortcut B": (lambda: tonsor.zoo.build("resnet20", width=0.25, shortcut="B"), (3, 8, 8)),
}


def masks(net: nn.Module) -> dict[str, DrawnMask]:
    """The masks of a net, by the names of the parameters."""
    found: dict[str, DrawnMask] = {}
    for path, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, DrawnMask):
            found[path.replace(".parametrizations", "").rpartition(".")[0]] = module
    return found


def gone(method: ByChance) -> dict[str, set[int]]:
    """Which pieces of each pool are gone for good, by their numbers."""
    return {p.name: set(p.gone.nonzero().flatten().tolist()) for p in method.chances.pools}


def chances(method: ByChance) -> list[Tensor]:
    return [pool.chance.clone() for pool in method.chances.pools]


def looks(net: nn.Module) -> Any:
    """All that others know a model by: names, order and identity of what it has, and classes."""
    parameters = [(n, id(p)) for n, p in net.named_parameters(remove_duplicate=False)]
    modules = [
        (n, type(m).__name__, type(m).__bases__, list(m._parameters), len(m._forward_hooks))
        for n, m in net.named_modules(remove_duplicate=False)
    ]
    return parameters, modules, list(net.state_dict())
