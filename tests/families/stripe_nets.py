"""Networks whose stripes go, and what the tests of stripes compare with: zeros set by hand."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tonsor import zoo
from tonsor.families.fibres import FibreLayers
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask, Fibres
from tonsor.plans import Plan
from tonsor.select.fibres.frame import Frame


class Plain(nn.Module):
    """A row of layers of any rank, pooled into a classifier."""

    def __init__(self, rank: int, *layers: nn.Module, last: int) -> None:
        super().__init__()
        self.body, self.rank = nn.Sequential(*layers), rank
        self.fc = nn.Linear(last, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.fc(x.flatten(2).mean(2))


class Flat(nn.Module):
    """What a convolution makes is flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
        self.two, self.fc = nn.Conv2d(5, 4, 3, padding=1), nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(self.one(x)).relu(), 2)
        return self.fc(self.two(x)[..., :2, :2].relu().flatten(1))


class Dense(nn.Module):
    """Each layer reads all before it, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(7)
        self.one = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.two = nn.Conv2d(7, 3, 3, padding=1, bias=False)
        self.fc = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.one(self.norm1(x).relu())], 1)
        x = torch.cat([x, self.two(self.norm2(x).relu())], 1)
        return self.fc(x.mean((2, 3)))


class Twice(nn.Module):
    """One convolution runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3, padding=1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.both(self.both(self.stem(x).relu()).relu()).mean((2, 3)))


class Residual(nn.Module):
    """Two blocks around a stream, the second of which changes its size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one, self.two = Unit(4, 4, 1), Unit(4, 6, 2)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.two(self.one(self.stem(x).relu())).mean((2, 3)))


class Unit(nn.Module):
    """A residual block."""

    def __init__(self, given: int, made: int, stride: int, within: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, within, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(within), nn.BatchNorm2d(made)
        self.conv2 = nn.Conv2d(within, made, 3, padding=1, bias=False)
        self.around = nn.Identity() if given == made else nn.Conv2d(given, made, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        f = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (f + self.around(x)).relu()


def _norm(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.ReLU()]


NETS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain": (
        lambda: Plain(2, nn.Conv2d(3, 6, 3, bias=False), *_norm(6), nn.Conv2d(6, 4, 3), last=4),
        (3, 7, 7),
    ),
    "bias": (
        lambda: Plain(2, nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), last=4),
        (3, 7, 7),
    ),
    "strided": (
        lambda: Plain(
            2, nn.Conv2d(3, 6, (5, 3), (3, 2), (2, 1)), *_norm(6),
            nn.Conv2d(6, 4, 3, 2, 1), last=4,
        ),
        (3, 13, 9),
    ),
    "dilated": (
        lambda: Plain(
            2, nn.Conv2d(3, 6, 3, dilation=2, padding="same"), *_norm(6),
            nn.Conv2d(6, 4, (1, 3), dilation=(1, 3), padding=(0, 2), padding_mode="reflect"),
            last=4,
        ),
        (3, 8, 8),
    ),
    "grouped": (
        lambda: Plain(
            2, nn.Conv2d(3, 6, 3), *_norm(6), nn.Conv2d(6, 8, 3, padding=1, groups=2), *_norm(8),
            nn.Conv2d(8, 4, 3), last=4,
        ),
        (3, 8, 8),
    ),
    "depthwise": (
        lambda: Plain(
            2, nn.Conv2d(3, 6, 3), *_norm(6), nn.Conv2d(6, 6, 3, padding=1, groups=6), *_norm(6),
            nn.Conv2d(6, 4, 1), last=4,
        ),
        (3, 7, 7),
    ),
    "one dimension": (
        lambda: Plain(
            1, nn.Conv1d(3, 6, 5, 2, 2), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 3), last=4
        ),
        (3, 12),
    ),
    "three dimensions": (
        lambda: Plain(
            3, nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(),
            nn.Conv3d(4, 3, (3, 1, 2), (1, 2, 1)), last=3,
        ),
        (2, 4, 5, 4),
    ),
    "flat": (Flat, (3, 8, 8)),
    "dense": (Dense, (3, 6, 6)),
    "twice": (Twice, (3, 7, 7)),
    "residual": (Residual, (3, 8, 8)),
    "resnet20": (lambda: zoo.build("resnet20", width=0.25), (3, 8, 8)),
    "vgg16": (lambda: zoo.build("vgg16", width=0.1), (3, 32, 32)),
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A network that is ready to lose stripes or columns."""

    model: Any
    x: Tensor
    anatomy: tonsor.Anatomy
    layers: FibreLayers


@functools.cache
def seen(name: str) -> Seen:
    """One of the networks; nothing that is done with it may change it."""
    build, shape = NETS[name]
    return looked_at(build(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


def looked_at(model: nn.Module, x: Tensor) -> Seen:
    model = settled(model)
    anatomy = tonsor.inspect(model, x)
    return Seen(model, x, anatomy, find_stripes(anatomy))


def drawn(layers: FibreLayers, seed: int, share: float) -> dict[str, FibreMask]:
    """Masks at random, with rows that have nothing left, but for one."""
    rng = np.random.default_rng(seed)
    found = {}
    for layer in layers.free:
        mask = rng.random((layer.rows, layer.positions)) < share
        mask[rng.random(layer.rows) < 0.3] = False
        mask[rng.integers(layer.rows), rng.integers(layer.positions)] = True
        found[layer.name] = mask
    return found


def followed(it: Seen, masks: Mapping[str, FibreMask], after: Plan | None = None) -> Plan:
    """The plan that keeps these fibres, and what follows."""
    return Frame(it.anatomy, it.layers, after).plan(masks, {})


def stripes_only(it: Seen, masks: Mapping[str, FibreMask]) -> Plan:
    """The plan that keeps these stripes, and in which nothing follows."""
    names = {x.name: x for x in it.layers}
    found = {names[n].weight: Fibres.of("stripes", m, names[n].kernel) for n, m in masks.items()}
    return replace(followed(it, {n: m | True for n, m in masks.items()}), fibres=found)


def emptied(it: Seen, *names: str) -> Plan:
    """The plan of a network in which these layers have no stripe, and what follows."""
    masks = {x.name: np.ones((x.rows, x.positions), dtype=np.bool_) for x in it.layers.free}
    return followed(it, {n: m & (n not in names) for n, m in masks.items()})


def computed(model: nn.Module, x: Tensor) -> Tensor:
    """What a copy of the model returns in float64."""
    with torch.no_grad():
        return copy.deepcopy(model).double()(x.double())


def zeroed(plan: Plan, model: nn.Module) -> nn.Module:
    """The oracle: a copy in float64 with zeros where anything goes. It knows no dropped blocks."""
    assert not plan.drops
    other = copy.deepcopy(model).double()
    tensors = dict(other.named_parameters()) | dict(other.named_buffers())
    with torch.no_grad():
        for name, dims in plan.cut().keep.items():
            for dim, kept in enumerate(dims):
                gone = set() if kept is None else {*range(tensors[name].shape[dim])} - {*kept}
                tensors[name].index_fill_(dim, torch.tensor(sorted(gone), dtype=torch.long), 0)
        for name, fibres in plan.fibres.items():
            every = slice(None)
            for index, row in enumerate(fibres.rows):
                where = (index, every) if fibres.kind == "stripes" else (every, index)
                for position, at in enumerate(np.ndindex(*fibres.kernel)):
                    if not row >> position & 1:
                        tensors[name][(*where, *at)] = 0
    return other
