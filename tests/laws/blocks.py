"""What a random network is made of: a registry of layers, each with the options to draw from.

A block is a module whose constructor takes the shape of its input and its options, and
accepts any combination of them: a width that does not fit is made to fit. What a person
would write as a number in the code is held in an attribute with a leading underscore, which
tonsor may not mend. Images are [N, C, H, W], tokens [N, T, C].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Kind = Literal["image", "tokens"]
Shape = Sequence[int]

WIDTHS = (2, 3, 4, 6, 8)
FLAG = (False, True)


@dataclass(frozen=True)
class Block:
    """A layer by name: its class, the inputs it takes, and what its options may be."""

    make: Callable[..., nn.Module]
    kinds: tuple[Kind, ...]
    options: Mapping[str, tuple[Any, ...]]
    bodies: int = 0


BLOCKS: dict[str, Block] = {}


def block(*kinds: Kind, bodies: int = 0, **options: tuple[Any, ...]) -> Callable[[type], type]:
    """Register a module class under its name in lower case; of options the first is simplest.

    With `bodies` the constructor also takes that many modules, each built for its own input.
    """

    def register(made: type) -> type:
        assert made.__name__ not in BLOCKS
        BLOCKS[made.__name__] = Block(made, kinds or ("image", "tokens"), options, bodies)
        return made

    return register


def channels(shape: Shape) -> int:
    return shape[channel_dim(shape)]


def channel_dim(shape: Shape) -> int:
    return 1 if len(shape) == 4 else len(shape) - 1


def dividing(*widths: int) -> int:
    """The largest number that divides all of them."""
    return math.gcd(*widths)


def mapping(shape: Shape, width: int, bias: bool = True) -> nn.Module:
    """A linear map of the channels: a convolution of one pixel, or a linear layer."""
    if len(shape) == 4:
        return nn.Conv2d(shape[1], width, 1, bias=bias)
    return nn.Linear(shape[-1], width, bias=bias)
