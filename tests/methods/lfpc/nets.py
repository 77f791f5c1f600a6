"""Nets whose channels are masked in part, and plain ways to compute what masks should."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tests.families.column_nets import Gated
from tonsor.anatomy import Anatomy


class Normed(nn.Module):
    """Convolutions, norms and ReLU in a row, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.two, self.norm2 = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.one(x)).relu()
        return self.fc(self.norm2(self.two(x)).relu().mean((2, 3)))


class Early(nn.Module):
    """Norms come before convolutions; with `stem` there is one behind the first layer too."""

    def __init__(self, stem: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(6) if stem else nn.Identity()
        self.norm1, self.norm2 = nn.BatchNorm2d(6), nn.BatchNorm2d(5)
        self.one = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.two = nn.Conv2d(5, 6, 3, padding=1, bias=False)
        self.norm3, self.fc = nn.BatchNorm2d(6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        x = x + self.two(self.norm2(self.one(self.norm1(x).relu())).relu())
        return self.fc(self.norm3(x).relu().mean((2, 3)))


class Twofold(nn.Module):
    """Two norms in a row, with nothing but a ReLU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1, self.norm2 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.two, self.fc = nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm2(self.norm1(self.one(x)).relu()).relu()
        return self.fc(self.two(x).relu().mean((2, 3)))


class Inverted(nn.Module):
    """A depthwise convolution between two of 1×1, beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.wide, self.norm1 = nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.norm2, self.norm3 = nn.BatchNorm2d(6), nn.BatchNorm2d(4)
        self.narrow, self.fc = nn.Conv2d(6, 4, 1, bias=False), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        y = self.norm2(self.deep(F.relu6(self.norm1(self.wide(x))))).relu()
        return self.fc((x + self.norm3(self.narrow(y))).mean((2, 3)))


class Dense(nn.Module):
    """Each layer reads all before it, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(7)
        self.one = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.two = nn.Conv2d(7, 3, 3, padding=1, bias=False)
        self.last, self.fc = nn.BatchNorm2d(10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x)).relu()
        x = torch.cat([x, self.one(self.norm1(x).relu())], 1)
        x = torch.cat([x, self.two(self.norm2(x).relu())], 1)
        return self.fc(self.last(x).relu().mean((2, 3)))


class Shifted(nn.Module):
    """What follows the norm does not map zero to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.two, self.fc = nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.norm(self.one(x)).sigmoid()).relu().mean((2, 3)))


class Bare(nn.Module):
    """No norm at all, and what is flattened is read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        self.fc = nn.Linear(5 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.two(self.one(x).relu()).relu(), 2).flatten(1))


class Grouped(nn.Module):
    """A convolution in two groups, so that channels go in pairs or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm1 = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.two, self.norm2 = nn.Conv2d(6, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.one(x)).relu()
        return self.fc(self.norm2(self.two(x)).relu().mean((2, 3)))


class Chunked(nn.Module):
    """Halves of what one layer makes are multiplied, each channel with its like."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.two, self.fc = nn.Conv2d(4, 5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(self.one(x)).chunk(2, 1)
        return self.fc(self.two(a.relu() * b).relu().mean((2, 3)))


class GroupNormed(nn.Module):
    """A norm over groups of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 6, 3, bias=False), nn.GroupNorm(3, 6)
        self.two, self.fc = nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.norm(self.one(x)).relu()).relu().mean((2, 3)))


class Mixer(nn.Module):
    """A small transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(self.patches(x).flatten(2).transpose(1, 2))
        return self.fc(self.norm(x).mean(1))


NETS: Mapping[str, Callable[[], nn.Module]] = {
    "normed": Normed, "early": Early, "early with a stem": lambda: Early(True),
    "twofold": Twofold, "inverted": Inverted, "dense": Dense, "gated": Gated,
    "shifted": Shifted, "bare": Bare, "grouped": Grouped, "chunked": Chunked,
    "group norm": GroupNormed, "mixer": Mixer,
    "resnet20": lambda: tonsor.zoo.build("resnet20", width=0.25),
    "shortcut B": lambda: tonsor.zoo.build("resnet20", width=0.25, shortcut="B"),
}  # fmt: skip


def images(count: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float64).to(dtype)


def made(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Any, Anatomy]:
    """A net in which every parameter and statistic matters, with its anatomy."""
    net = settled(NETS[name]().to(dtype), seed)
    return net, tonsor.inspect(net, images(dtype=dtype))


def labelled(count: int, size: int = 4, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Minibatches of images of three classes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (images(size, seed + i), torch.randint(3, (size,), generator=generator))
        for i in range(count)
    ]
