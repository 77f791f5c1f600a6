"""What the tests of blocks share: find, remove, prove, and compare with something independent."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import settled
from tests.laws.checks import apart, tensors
from tonsor.families.blocks.block import Blocks
from tonsor.families.blocks.find import Level, find_blocks
from tonsor.select.drop import drop_plan

Zero = Callable[[nn.Module], None]


def found(model: nn.Module, inputs: Any, level: Level = "block") -> tuple[tonsor.Anatomy, Blocks]:
    """A model's anatomy and its blocks."""
    anatomy = tonsor.inspect(model, inputs)
    return anatomy, find_blocks(anatomy, level=level)


def going(blocks: Blocks) -> list[str]:
    """The names of those that may go."""
    return [b.name for b in blocks.removable]


def without(
    anatomy: tonsor.Anatomy, blocks: Blocks, names: Iterable[str]
) -> tuple[tonsor.Plan, nn.Module]:
    """The plan that removes some blocks, and the slim model: proven, and as cheap as foretold."""
    plan = drop_plan(anatomy, blocks, names)
    slim = plan.apply(anatomy.model, verify=False)
    assert plan.prove(anatomy.model, slim).error < 1e-9
    foretold, after = anatomy.cost_without(plan.drops), tonsor.inspect(slim, anatomy.inputs).cost
    assert foretold.macs(plan.counts) == after.macs()
    assert foretold.params(plan.counts) == after.params() == count(slim)
    return plan, slim


def count(model: nn.Module) -> int:
    """How many numbers the parameters of a model hold."""
    return sum(p.numel() for p in model.parameters())


def outputs(model: nn.Module, inputs: tonsor.Inputs) -> list[Tensor]:
    """What a copy of the model returns in float64; the inputs are not touched."""

    def double(tensor: Tensor) -> Tensor:
        return tensor.double() if tensor.is_floating_point() else tensor.clone()

    given = inputs.map(double)
    with torch.no_grad():
        return list(tensors(copy.deepcopy(model).double()(*given.args, **given.kwargs)))


def same(first: nn.Module, second: nn.Module, inputs: tonsor.Inputs) -> bool:
    """Whether two models compute the same to 1e-9."""
    return apart(outputs(first, inputs), outputs(second, inputs)) < 1e-9


def zeroed(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """The oracle of branches that end in a weight: a copy in which these are zero."""
    oracle = copy.deepcopy(model)
    with torch.no_grad():
        for name in names:
            for parameter in oracle.get_submodule(name).parameters():
                parameter.zero_()
    return oracle


def ready(model: nn.Module) -> nn.Module:
    """In eval mode, with every statistic away from its start, so that all of it matters."""
    return settled(model)
