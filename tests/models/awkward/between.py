"""The plain nets that most awkward cases hide one awkward thing in."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, floats, image

IN, WIDE, NEXT, OUT = 13, 48, 32, 7
Op = Callable[[Tensor], Tensor]


class Between(nn.Module):
    """A fully connected net with one operation on its 48 hidden units.

    The operation leaves `after` units. The layers on either side of its neighbours
    are ordinary, so there is something to prune whatever the operation does.
    """

    def __init__(self, op: Op, after: int = WIDE) -> None:
        super().__init__()
        self.op = op
        self.first, self.second = nn.Linear(IN, NEXT), nn.Linear(NEXT, WIDE)
        self.third, self.last = nn.Linear(after, 40), nn.Linear(40, OUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.op(self.second(F.gelu(self.first(x))))
        return self.last(F.gelu(self.third(x)))


class ImageBetween(nn.Module):
    """The same for images: convolutions around one operation on 24 channels."""

    def __init__(self, op: Op, after: int = 24) -> None:
        super().__init__()
        self.op = op
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3)
        self.third, self.last = nn.Conv2d(after, 28, 3), nn.Linear(28, OUT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.op(self.second(F.gelu(self.first(x))))
        return self.last(F.gelu(self.third(x)).mean((2, 3)))


def row() -> Tensor:
    return floats(IN)


def small_image() -> Tensor:
    return image(10)


def on_rows(name: str, op: Op, after: int = WIDE, cut: Cut = "free", note: str = "") -> Case:
    """A case for one operation on the last axis of a batch of rows."""
    return case(name, lambda: Between(op, after), row, family="operation", cut=cut, note=note)


def on_images(name: str, op: Op, after: int = 24, cut: Cut = "free", note: str = "") -> Case:
    """A case for one operation on a batch of channels-first images."""
    return case(
        name, lambda: ImageBetween(op, after), small_image, family="operation", cut=cut, note=note
    )


def on_module(
    name: str,
    model: Callable[[], nn.Module],
    inputs: Callable[[], Any] = row,
    kwargs: Callable[[], dict] = dict,
    *,
    family: str,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    """A case for a whole module; a row of 13 numbers goes in unless told otherwise."""
    return case(name, model, inputs, kwargs, family=family, cut=cut, note=note)
