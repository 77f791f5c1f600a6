"""What may not go says why, and what only looks like a block isn't taken for one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.refusals import said
from tonsor.errors import SelectionError
from tonsor.families.blocks.find import find_blocks
from tonsor.select.drop import drop_plan

from .check import found, going, ready, without
from .odd import WIDTH, Block

X = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """One layer of weight, one block, and another layer."""

    def __init__(self, block: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4)
        self.block: Any = Block() if block is None else block

    def forward(self, x: Tensor) -> Any:
        return self.last(self.block(self.first(x)))


class CalledTwice(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.block(self.first(x))))


class SecondOut(Block):
    def forward(self, x: Tensor) -> Any:
        f = self.branch(x)
        return x + f, f


class SecondRead(Net):
    def __init__(self) -> None:
        super().__init__(SecondOut())

    def forward(self, x: Tensor) -> Tensor:
        x, f = self.block(self.first(x))
        return self.last(x) + f.mean()


class Keeps(Block):
    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.branch(x)
        return x + self.seen


class BehindItsBack(Net):
    def __init__(self) -> None:
        super().__init__(Keeps())

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x))) * self.block.seen.mean()


class Overwrites(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = x.relu_()
        return x + self.branch(x)


class ReadAgain(Net):
    def __init__(self) -> None:
        super().__init__(Overwrites())

    def forward(self, x: Tensor) -> Tensor:
        skip = self.first(x)
        return self.last(self.block(skip) + skip)


class WeightRead(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.first(x))) * self.block.f.weight.abs().mean()


class Holder(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x


class Makes(Block):
    def forward(self, x: Tensor) -> Any:
        return x + self.branch(x), Holder()


class MakesAnObject(Net):
    def __init__(self) -> None:
        super().__init__(Makes())

    def forward(self, x: Tensor) -> Tensor:
        x, other = self.block(self.first(x))
        return self.last(other(x))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (CalledTwice, "it is called 2 times, so it is several layers"),
        (SecondRead, "it returns several tensors that are used later"),
        (BehindItsBack, "what it computes inside is read by the model itself too"),
        (ReadAgain, "it writes into what it is given, which is used again after it"),
        (WeightRead, "its 'block.f.weight' is read by the model itself too"),
        (MakesAnObject, "it returns a Holder, which nothing but the block can make"),
    ],
)
def test_a_block_stays_with_its_reason(kind: type[Net], reason: str) -> None:
    anatomy, blocks = found(ready(kind()), X)
    assert not blocks.named("block").removable
    assert blocks.named("block").reason == reason
    assert f"block  stays: {reason}" in str(blocks)
    told = said(SelectionError, lambda: drop_plan(anatomy, blocks, ["block"]))
    assert told == f"block 'block' may not go: {reason}"


class Subtracts(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) - x


class ScaledShortcut(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.branch(x), x, alpha=2)


class Multiplies(Block):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.branch(x)


class Joins(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], -1)[..., : x.shape[-1]]


class Projects(Block):
    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.around(x) + self.branch(x)


class Doubles(Block):
    """What it adds to is not what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 + self.branch(x)


class Wider(Block):
    """What goes in is one token, and what comes out many."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True) + self.branch(x)


@pytest.mark.parametrize(
    "kind", [Subtracts, ScaledShortcut, Multiplies, Joins, Projects, Doubles, Wider]
)
def test_what_has_no_way_around_it_is_no_residual_block(kind: type[Block]) -> None:
    anatomy, blocks = found(ready(Net(kind())), X)
    assert "block" not in going(blocks)
    for name in going(blocks):  # a layer inside may go all the same, as a layer
        without(anatomy, blocks, [name])


def test_a_projection_around_the_branch_says_so() -> None:
    _, blocks = found(ready(Net(Projects())), X)
    reason = blocks.named("block").reason
    assert reason == "no way around its branches leads back to what goes in"


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    anatomy, blocks = found(ready(Net()), X)
    told = said(SelectionError, lambda: drop_plan(anatomy, blocks, ["blok"]))
    assert told == "no block is called 'blok'; the blocks are block"


def test_an_exported_run_has_no_modules_to_find() -> None:
    anatomy = tonsor.inspect(ready(Net()), X, mode="export")
    assert 'inspect it without mode="export"' in said(SelectionError, lambda: find_blocks(anatomy))


def test_what_is_never_called_is_no_block() -> None:
    net = Net()
    net.spare = Block()
    _, blocks = found(ready(net), X)
    assert [b.name for b in blocks] == ["block"]
