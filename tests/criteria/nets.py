"""Small networks to score, and the naive ways to look at a group that scores are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tonsor.types import Axis, Concat, Leaf

Batch = tuple[Tensor, Tensor]
Model = TypeVar("Model", bound=nn.Module)


class Small(nn.Module):
    """Two convolutions with BatchNorm, pooled to 2x2, flattened into a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.linear = nn.Linear(5 * 4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = self.bn2(self.conv2(x)).relu_()
        return self.linear(F.adaptive_avg_pool2d(x, 2).flatten(1))


def settled(model: Model, seed: int = 0) -> Model:
    """Give every parameter and statistic a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            drawn = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            if "var" in name:
                tensor.copy_(drawn + 0.5)
            elif tensor.dim() == 1:
                tensor.copy_(drawn * 1.2 - 0.3)
            else:
                tensor.copy_((drawn * 2 - 1) * 1.7 / tensor[0].numel() ** 0.5)
    return model.eval()


def small(seed: int = 0, dtype: torch.dtype = torch.float64) -> Small:
    return settled(Small().to(dtype), seed)


def pictures(
    count: int = 3,
    size: int = 4,
    side: int = 8,
    classes: int = 4,
    dtype: torch.dtype = torch.float64,
) -> list[Batch]:
    """So many minibatches of random pictures."""
    generator = torch.Generator().manual_seed(7)
    return [
        (
            torch.randn(size, 3, side, side, generator=generator, dtype=dtype),
            torch.randint(0, classes, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def looked_at(model: nn.Module, inputs: object = None) -> tonsor.Anatomy:
    return tonsor.inspect(model, pictures(1)[0][0][:2] if inputs is None else inputs)


def positions(axis: Axis, leaf: str) -> Iterator[list[list[int]]]:
    """For each time a leaf runs through an axis: the positions of each of its indices."""
    labels = _labels(axis, leaf, ())
    paths = list(dict.fromkeys(p for found in labels for p, _ in found))
    for path in sorted(paths):
        size = 1 + max(i for found in labels for p, i in found if p == path)
        yield [[at for at, found in enumerate(labels) if (path, i) in found] for i in range(size)]


def _labels(
    axis: Axis, leaf: str, path: tuple[int, ...]
) -> list[list[tuple[tuple[int, ...], int]]]:
    if isinstance(axis, Leaf):
        return [[(path, i)] if axis.name == leaf else [] for i in range(axis.size)]
    if isinstance(axis, Concat):
        return [
            label for k, s in enumerate(axis.segments) for label in _labels(s, leaf, (*path, k))
        ]
    found: list[list[tuple[tuple[int, ...], int]]] = [[]]
    for k, factor in enumerate(axis.factors):
        inner = _labels(factor, leaf, (*path, k))
        found = [[*outer, *one] for outer in found for one in inner]
    return found


def pieces(tensor: Tensor, dim: int, axis: Axis, leaf: str) -> Iterator[list[Tensor]]:
    """For each place: what belongs to each piece, one after the other."""
    for place in positions(axis, leaf):
        yield [tensor.index_select(dim, torch.tensor(at)).flatten() for at in place]
