"""Random networks, each described by a recipe that is printed as code.

A falsified law prints `Network("image", 3, 4, (Step("Conv", width=2), ...))`; pasted behind
`from tests.laws.networks import *` it builds the same network again: `model, x = recipe.build()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hypothesis
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.models.case import randomise

from . import (
    common_blocks,
    habit_blocks,
    image_blocks,
    odd_blocks,
    sequence_blocks,
    token_blocks,
    vision_blocks,
    wiring_blocks,
)
from .blocks import BLOCKS, Kind, channel_dim, channels, mapping

__all__ = ["Network", "Step", "examples", "networks"]

REGISTERED = (
    common_blocks, image_blocks, odd_blocks, token_blocks,
    wiring_blocks, vision_blocks, sequence_blocks, habit_blocks,
)  # fmt: skip
HEADS = ("pool", "flatten", "last", "map", "dict", "raw", "gram", "mean_of_two")
MAX_CHANNELS = 24


class Step:
    """One layer of a recipe: the name of a block, its options, and the layers inside it."""

    def __init__(self, name: str, *bodies: tuple[Step, ...], **options: Any) -> None:
        self.name, self.bodies, self.options = name, bodies, options

    def __repr__(self) -> str:
        parts = [repr(self.name), *map(repr, self.bodies)]
        parts += [f"{k}={v!r}" for k, v in self.options.items() if v != self.simplest[k]]
        return f"Step({', '.join(parts)})"

    @property
    def simplest(self) -> Mapping[str, Any]:
        return {k: v[0] for k, v in BLOCKS[self.name].options.items()}

    def build(self, shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
        made = BLOCKS[self.name]
        bodies = [sequence(body, shape)[0] for body in self.bodies]
        module = made.make(shape, *bodies, **{**self.simplest, **self.options})
        return module, shape_after(module, shape)


def shape_after(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(shape)).shape)


def sequence(steps: tuple[Step, ...], shape: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Build layers one after the other; one that would grow too wide is left out."""
    modules = []
    for step in steps:
        module, after = step.build(shape)
        if channels(after) <= MAX_CHANNELS:
            modules.append(module)
            shape = after
    return nn.Sequential(*modules), shape


class Network:
    """The recipe of a network: its input, its layers, what it returns, and a seed."""

    def __init__(
        self, kind: Kind, width: int, length: int, steps: tuple[Step, ...], head: str = "pool",
        *, raw: bool = False, seed: int = 0, training: bool = False,
    ) -> None:  # fmt: skip
        self.kind: Kind = kind
        self.width, self.length, self.steps, self.head = width, length, steps, head
        self.raw, self.seed, self.training = raw, seed, training

    def __repr__(self) -> str:
        text = f"Network({self.kind!r}, {self.width}, {self.length}, {self.steps!r}, {self.head!r}"
        for name, default in (("raw", False), ("seed", 0), ("training", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)!r}"
        return f"{text})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the input."""
        if self.kind == "image":
            return 2, self.width, self.length, self.length
        return 2, self.length, self.width

    def build(self) -> tuple[nn.Module, Tensor]:
        """Make the model and an input; the same ones every time."""
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            body, shape = sequence(self.steps, self.shape)
            model = Net(body, shape, self.shape, self.head, self.raw)
            randomise(model, self.seed)
            return model.train(self.training), torch.randn(self.shape)


class Net(nn.Module):
    """Layers, perhaps joined by the raw input, and a head."""

    def __init__(
        self, body: nn.Module, shape: tuple[int, ...], given: tuple[int, ...], head: str, raw: bool
    ) -> None:
        super().__init__()
        self.body, self.how, self.raw = body, head, raw
        self.dim = channel_dim(shape)
        self.pixels = list(shape[2:])
        if raw:
            shape = _with_channels(shape, channels(shape) + channels(given))
        numbers = torch.Size(shape[1:]).numel()
        if head in ("pool", "dict", "mean_of_two"):
            self.head = nn.Linear(channels(shape), 3)
            self.other = mapping(shape, 2)
        elif head in ("flatten", "last"):
            self.head = nn.Linear(numbers, 3)
        elif head == "map":
            self.head = mapping(shape, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        if self.raw:
            y = torch.cat([y, self.fitted(x, y)], self.dim)
        space = (2, 3) if y.dim() == 4 else (1,)
        if self.how == "pool":
            return self.head(y.mean(space))
        if self.how == "flatten":
            return self.head(y.flatten(1))
        if self.how == "last":
            return self.head(y.movedim(self.dim, -1).reshape(len(y), -1))
        if self.how == "map":
            return self.head(y)
        if self.how == "dict":
            return {"label": self.head(y.mean(space)), "map": (self.other(y), y.sum(self.dim))}
        if self.how == "mean_of_two":
            return self.head(y.mean(space)) + self.other(y).mean()
        if self.how == "gram":
            return y.flatten(1) @ y.flatten(1).T
        return y

    def fitted(self, x: Tensor, y: Tensor) -> Tensor:
        if x.dim() == 4:
            return nn.functional.interpolate(x, size=self.pixels)
        more = y.shape[1] - x.shape[1]
        return torch.cat([x[:, :1].expand(-1, more, -1), x], 1) if more else x


def _with_channels(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    changed = list(shape)
    changed[channel_dim(shape)] = width
    return tuple(changed)


# ---------------------------------------------------------------- drawing


@st.composite
def steps(draw: st.DrawFn, kind: Kind, depth: int = 1) -> Step:
    """One layer for images or tokens; layers that hold others are `depth` deep at most."""
    fitting = [n for n, b in BLOCKS.items() if kind in b.kinds and (depth or not b.bodies)]
    name = draw(st.sampled_from(fitting))
    options = {k: draw(st.sampled_from(v)) for k, v in BLOCKS[name].options.items()}
    inside = st.lists(steps(kind, depth - 1), min_size=1, max_size=3).map(tuple)
    bodies = [draw(inside) for _ in range(BLOCKS[name].bodies)]
    return Step(name, *bodies, **options)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """A network of two to eight layers (five, in haste), some of which hold others."""
    kind: Kind = draw(st.sampled_from(("image", "tokens")))
    first = "Conv" if kind == "image" else "Mix"
    layers = draw(st.lists(steps(kind), min_size=1, max_size=7 if thorough() else 4))
    stem = Step(first, width=draw(st.sampled_from((4, 6, 8))))
    return Network(
        kind,
        draw(st.sampled_from((3, 1, 4))),
        draw(st.sampled_from((4, 3, 6))),
        (stem, *layers),
        draw(st.sampled_from(HEADS)),
        raw=draw(st.booleans()),
        seed=draw(st.integers(0, 9)),
        training=draw(st.booleans()),
    )


def thorough() -> bool:
    """Whether new examples are looked for, rather than the same ones tried once more."""
    return hypothesis.settings().max_examples > 100


def examples(number: int) -> hypothesis.settings:
    """So many examples, which take long; twenty times as many where new ones are looked for."""
    return hypothesis.settings(max_examples=20 * number if thorough() else number)
