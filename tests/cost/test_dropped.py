"""The foretold cost of a model without some blocks is the cost of the model that is left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.families.blocks.check import count, found, ready
from tests.families.blocks.odd import Block, Leaky, Odd, PostNorm
from tonsor import zoo
from tonsor.select.drop import drop_plan

X = torch.randn(2, 5, 3)


def test_nothing_gone_is_the_account_itself() -> None:
    anatomy, _ = found(ready(Odd(Block)), X)
    assert anatomy.cost_without(()) is anatomy.cost


@pytest.mark.parametrize("kind", [Block, PostNorm, Leaky])
def test_what_stays_of_a_block_is_still_counted(kind: type[Block]) -> None:
    net = ready(Odd(kind))
    anatomy, blocks = found(net, X)
    plan = drop_plan(anatomy, blocks, ["layers.0", "layers.2"])
    slim = plan.apply(net)
    foretold = anatomy.cost_without(plan.drops)
    after = tonsor.inspect(slim, X).cost
    assert (foretold.macs(), foretold.params()) == (after.macs(), after.params())
    assert foretold.params() == count(slim)
    kept = {Block: 0, PostNorm: 12, Leaky: 1}[kind]
    assert count(net) - foretold.params() == 2 * (count(net.get_submodule("layers.0")) - kept)
    assert anatomy.cost.macs() - foretold.macs() == 2 * 5 * 6 * 6


def test_with_channels_cut_as_well() -> None:
    net = ready(zoo.build("resnet20", width=0.25))
    x = torch.randn(2, 3, 8, 8)
    anatomy, blocks = found(net, x)
    channels = tonsor.plan(anatomy, "macs=60%", by="l1")
    plan = drop_plan(anatomy, blocks, ["layer1.1", "layer3.1"], after=channels)
    slim = plan.apply(net)
    foretold, after = anatomy.cost_without(plan.drops), tonsor.inspect(slim, x).cost
    assert foretold.macs(plan.counts) == after.macs()
    assert foretold.params(plan.counts) == count(slim)


class Shared(nn.Module):
    """The weight of the block is that of the last layer too."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Block(), nn.Linear(6, 6)
        self.last.weight = self.block.f.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(x))


def test_a_weight_that_something_else_has_too_is_counted() -> None:
    net = ready(Shared())
    anatomy, blocks = found(net, torch.randn(2, 5, 6))
    plan = drop_plan(anatomy, blocks, ["block"])
    assert anatomy.cost_without(plan.drops).params() == count(plan.apply(net)) == 36 + 6
