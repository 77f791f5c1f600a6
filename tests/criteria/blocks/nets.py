"""What the tests of block scores share: small networks with their blocks."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tonsor import zoo
from tonsor.criteria.blocks.material import Material
from tonsor.families.blocks.block import Blocks
from tonsor.families.blocks.find import find_blocks

Seen = tuple[tonsor.Anatomy, Blocks]


@cache
def resnet(shortcut: str = "A") -> nn.Module:
    """Nine blocks in three stages, of 4, 8 and 16 channels; the same each time."""
    return fresh(shortcut)


def fresh(shortcut: str = "A") -> nn.Module:
    """The same, for whoever changes it."""
    return settled(zoo.build("resnet20", width=0.25, shortcut=shortcut).double())


@cache
def plain() -> nn.Module:
    return settled(zoo.build("vgg16", width=0.125).double())


@cache
def seen(net: nn.Module, side: int = 8) -> Seen:
    """A model's anatomy and its blocks; found once for each model."""
    dtype = next(net.parameters()).dtype
    anatomy = tonsor.inspect(net, torch.randn(2, 3, side, side, dtype=dtype))
    return anatomy, find_blocks(anatomy)


def material(net: nn.Module, batches: object = None, side: int = 8, **more: object) -> Material:
    anatomy, blocks = seen(net, side)
    return Material(anatomy, blocks, batches, quiet=True, **more)  # type: ignore[arg-type]


class Layer(nn.Module):
    """A layer of a transformer, without the attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.wide, self.back = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        return x + scale * self.back(self.wide(self.norm(x)).relu())


class Tokens(nn.Module):
    """Three layers over a sequence of tokens."""

    def __init__(self, width: int = 6, classes: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        self.layers = nn.ModuleList([Layer(width) for _ in range(3)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def tokens() -> tuple[nn.Module, tonsor.Anatomy, Blocks]:
    net = settled(Tokens().double())
    anatomy = tonsor.inspect(net, torch.randn(2, 7, 3, dtype=torch.float64))
    return net, anatomy, find_blocks(anatomy)


def outputs(net: nn.Module, blocks: Blocks, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into every block and what comes out, by hooks."""
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}

    def note_input(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        before[name] = given[0].clone()

    def note(name: str, _: nn.Module, given: object, out: Tensor) -> None:
        after[name] = out.clone()

    hooks = []
    for b in blocks:
        first, last = net.get_submodule(b.modules[0]), net.get_submodule(b.modules[-1])
        hooks.append(first.register_forward_pre_hook(partial(note_input, b.name)))
        hooks.append(last.register_forward_hook(partial(note, b.name)))
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return {name: (before[name], after[name]) for name in before}
