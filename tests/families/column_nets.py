"""Networks whose columns go, and what they have to equal: the same with zeros in those columns."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tests.families.stripe_nets import NETS as OF_STRIPES
from tests.families.stripe_nets import Plain, Seen, followed
from tonsor.families.columns.layers import find_columns
from tonsor.fibres import FibreMask, Fibres
from tonsor.plans import Plan


class Gated(nn.Module):
    """Channels are scaled by what two 1×1 convolutions say of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.down, self.up = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.last, self.fc = nn.Conv2d(6, 4, 3, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.fc(self.last(x).relu().mean((2, 3)))


class Beside(nn.Module):
    """Two branches side by side, one of them pooled, that one convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 5, padding=2)
        self.join, self.fc = nn.Conv2d(9, 4, (3, 1)), nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        two = F.avg_pool2d(F.pad(self.two(x).relu(), (1, 1, 1, 1)), 3, 1)
        x = self.join(torch.cat([self.one(x).tanh(), two], 1))
        return self.fc(F.adaptive_max_pool2d(x, 2).flatten(1))


NETS: Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    **{n: OF_STRIPES[n] for n in (
        "plain", "bias", "strided", "dilated", "grouped", "depthwise", "one dimension",
        "three dimensions", "flat", "dense", "twice", "residual", "resnet20", "vgg16",
    )},
    "gated": (Gated, (3, 7, 7)),
    "beside": (Beside, (3, 7, 7)),
    "pointwise": (
        lambda: Plain(
            2, nn.Conv2d(3, 6, 1), nn.PReLU(6), nn.Conv2d(6, 5, 1, 2), nn.InstanceNorm2d(5),
            nn.Conv2d(5, 4, 2), last=4,
        ),
        (3, 7, 7),
    ),
}  # fmt: skip
SMALL = sorted(NETS.keys() - {"resnet20", "vgg16"})


@functools.cache
def seen(name: str) -> Seen:
    """One of the networks; nothing that is done with it may change it."""
    build, shape = NETS[name]
    return looked_at(build(), torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


def looked_at(model: nn.Module, x: Tensor, keep: tuple[str, ...] = ()) -> Seen:
    """A network that is ready to lose columns, but for some layers."""
    model = settled(model)
    anatomy = tonsor.inspect(model, x)
    return Seen(model, x, anatomy, find_columns(anatomy).without(keep, "it was asked for"))


def whole(it: Seen) -> dict[str, FibreMask]:
    """Masks of all columns."""
    return {x.name: np.ones((x.rows, x.positions), dtype=np.bool_) for x in it.layers.free}


def columns_only(it: Seen, masks: Mapping[str, FibreMask]) -> Plan:
    """The plan that keeps these columns, and in which nothing follows."""
    names = {x.name: x for x in it.layers}
    found = {names[n].weight: Fibres.of("columns", m, names[n].kernel) for n, m in masks.items()}
    return replace(followed(it, whole(it)), fibres=found)


def deadened(it: Seen, masks: Mapping[str, FibreMask], model: nn.Module | None = None) -> Any:
    """The oracle: a copy in float64 with zeros in the columns that go, and in nothing else."""
    other: Any = copy.deepcopy(it.model if model is None else model).double()
    with torch.no_grad():
        for name, kept in masks.items():
            weight = other.get_submodule(name).weight
            for given in range(weight.shape[1]):
                for position, at in enumerate(np.ndindex(*weight.shape[2:])):
                    if not kept[given, position]:
                        weight[(slice(None), given, *at)] = 0
    return other
