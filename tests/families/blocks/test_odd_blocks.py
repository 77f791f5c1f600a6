"""However a residual block is written: without it the model computes what it would with zero."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

import tonsor
from tonsor.errors import ProofError
from tonsor.families.blocks.find import Level
from tonsor.select.drop import drop_plan

from . import odd
from .check import found, going, ready, same, without

X = tonsor.Inputs(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)))
KINDS = sorted(odd.kinds(), key=lambda k: k.__name__)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_without_it_is_with_its_branch_at_zero(kind: type[odd.Block]) -> None:
    net = ready(odd.Odd(kind))
    anatomy, blocks = found(net, X)
    every = [f"layers.{i}" for i in range(3)]
    assert going(blocks) == every
    oracle: Any
    for names in (every[:1], every[1:], every):
        oracle = copy.deepcopy(net)
        for name in names:
            oracle.get_submodule(name).off = True
        assert not same(net, oracle, X), "the branch makes no difference, so nothing is tested"
        plan, slim = without(anatomy, blocks, names)
        assert same(slim, oracle, X)
        assert same(plan.mask(net), oracle, X)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_branches_go_too(kind: type[odd.Block]) -> None:
    level: Level = "branch"
    anatomy, blocks = found(ready(odd.Odd(kind)), X, level)
    for names in (going(blocks)[:1], going(blocks)):
        without(anatomy, blocks, names)


def test_a_norm_behind_a_branch_is_no_branch_by_itself() -> None:
    """Zero of the linear layer is not zero behind the norm, and so both go together."""

    class NormLast(odd.Block):
        def branch(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.norm(self.f(x)))

    net = ready(odd.Odd(NormLast))
    anatomy, blocks = found(net, X, "branch")
    assert [b.modules for b in blocks.removable] == [
        (f"layers.{i}.f", f"layers.{i}.norm") for i in range(3)
    ]
    _, slim = without(anatomy, blocks, ["layers.1.f"])
    oracle: Any = copy.deepcopy(net)
    oracle.get_submodule("layers.1").off = True
    assert same(slim, oracle, X)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (odd.Block, ()),
        (odd.PostActivation, ("silu()",)),
        (odd.PostNorm, ("layers.0.norm",)),
        (odd.Leaky, ("layers.0.act",)),
        (odd.SharedReLU, ("relu()",)),
    ],
    ids=lambda k: getattr(k, "__name__", ""),
)
def test_the_shortcut_keeps_what_follows_the_sum(
    kind: type[odd.Block], kept: tuple[str, ...]
) -> None:
    _, blocks = found(ready(odd.Odd(kind)), X)
    drop = blocks[0].drop
    assert drop is not None
    assert drop.through == kept


def test_a_relu_after_a_relu_is_left_out() -> None:
    _, blocks = found(ready(odd.Odd(odd.SharedReLU)), X)
    kept = [b.drop.through for b in blocks.removable if b.drop is not None]
    assert kept == [("relu()",), (), ()]  # only the first block is given anything below zero


def test_a_wrong_shortcut_does_not_pass_the_proof() -> None:
    """Whatever is claimed of a block is not believed."""
    net = ready(odd.Odd(odd.PostActivation))
    anatomy, blocks = found(net, X)
    plan = drop_plan(anatomy, blocks, ["layers.1"])
    (drop,) = plan.drops
    wrong = [
        replace(drop, through=()),
        replace(drop, through=("tanh()",)),
        replace(drop, through=("layers.1.norm",)),
        replace(drop, gives="0"),
        replace(drop, zeroed=()),
        replace(drop, zeroed=(replace(drop.zeroed[0], argument="self"),)),
    ]
    for other in wrong:
        with pytest.raises(ProofError):
            replace(plan, drops=(other,)).apply(net)
    masked = ready(odd.Odd(odd.Masked))
    anatomy, blocks = found(masked, X)
    plan = drop_plan(anatomy, blocks, ["layers.1"])
    with pytest.raises(ProofError):
        replace(plan, drops=(replace(plan.drops[0], takes=("mask",)),)).apply(masked)
