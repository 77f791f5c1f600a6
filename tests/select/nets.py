"""Small networks whose selections are looked at, each inspected once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores
from tonsor.plans import Plan

NAMES = ("resnet20", "convnet", "halves", "row")


class Halves(nn.Module):
    """An even chunk, whose two parts are read by different layers: they can only shrink in step."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(6, 24)
        self.left, self.right, self.last = nn.Linear(12, 20), nn.Linear(12, 20), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.wide(x).chunk(2, -1)
        return self.last(self.left(left.relu()) * self.right(right.relu()).sigmoid())


def _row() -> nn.Module:
    """Blocks of the same structure between fixed ends: one class of groups."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.up(x).relu())

    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = x + block(x)
            return x

    return Row()


@cache
def anatomy_of(name: str) -> Anatomy:
    """Inspect a network with random weights, the same ones every time."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        if name in ("halves", "row"):
            model = Halves() if name == "halves" else _row()
            return tonsor.inspect(model.eval(), torch.randn(2, 6 if name == "halves" else 8))
        model = zoo.build(name, width=0.5 if name == "resnet20" else 0.25)
        return tonsor.inspect(model.eval(), torch.randn(1, 3, 32, 32))


def drawn(anatomy: Anatomy, seed: int, *, few: bool = False) -> Scores:
    """Draw scores of every scale; `few` different ones make for many ties."""
    rng = np.random.default_rng(seed)
    values = {}
    for group in anatomy.prunable:
        row = rng.gamma(1.0, 10 ** rng.uniform(-3, 3), group.size)
        values[group.name] = np.ceil(row) if few else row
    return Scores(values, f"drawn {seed}")


nets = st.sampled_from(NAMES)
seeds = st.integers(0, 10**6)


def removed(decided: Plan) -> set[tuple[str, int]]:
    """Every piece that a plan removes."""
    return {
        (name, i)
        for name, kept in decided.keep.items()
        for i in set(range(decided.sizes[name])) - set(kept)
    }


def widths(anatomy: Anatomy, decided: Plan) -> dict[str, int]:
    """How many pieces stay of every free group."""
    return {g.name: decided.counts.get(g.name, g.size) for g in anatomy.prunable}


def together(anatomy: Anatomy, names: Sequence[str]) -> set[str]:
    """Groups, with all that must shrink in step with them."""
    ties = {anatomy.by_name[n].tie for n in names} - {None}
    return {*names, *(g.name for g in anatomy.groups if g.tie in ties)}
