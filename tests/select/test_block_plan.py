"""Plans of blocks: what goes, in which order, until which cost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import BudgetError, SelectionError, TonsorError
from tonsor.families.blocks.block import Blocks
from tonsor.zoo.cifar_resnet import CifarResNet

BLOCK = 4_718_592  # multiply-accumulates of a block of a CIFAR ResNet, whatever its stage


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    torch.manual_seed(0)
    return tonsor.inspect(CifarResNet(20).eval(), torch.randn(2, 3, 32, 32))


@pytest.fixture(scope="module")
def found(anatomy: Anatomy) -> Blocks:
    return tonsor.blocks(anatomy)


def backwards(blocks: Blocks) -> BlockScores:
    """The last block matters least."""
    return BlockScores({b.name: -float(i) for i, b in enumerate(blocks)}, "mine")


def gone(plan: tonsor.Plan) -> list[str]:
    return [d.name for d in plan.drops]


@given(number=st.integers(0, 7))
def test_the_lowest_go_and_cost_what_they_cost(
    anatomy: Anatomy, found: Blocks, number: int
) -> None:
    plan = tonsor.plan_blocks(anatomy, remove=number, by=backwards(found))
    order = [b.name for b in reversed(found) if b.removable]
    assert set(gone(plan)) == set(order[:number])
    left = anatomy.cost_without(plan.drops).macs(plan.counts)
    assert anatomy.cost.macs() - left == number * BLOCK


@given(kept=st.floats(0.2, 1.0))
def test_no_more_goes_than_the_budget_asks_for(
    anatomy: Anatomy, found: Blocks, kept: float
) -> None:
    plan = tonsor.plan_blocks(anatomy, tonsor.macs(kept), by=backwards(found))
    whole, number = anatomy.cost.macs(), len(plan.drops)
    assert whole - number * BLOCK <= kept * whole
    assert number == 0 or whole - (number - 1) * BLOCK > kept * whole
    assert plan.made_by["reached"] == whole - number * BLOCK


def test_pieces_are_blocks(anatomy: Anatomy, found: Blocks) -> None:
    plan = tonsor.plan_blocks(anatomy, "pieces=75%", by=backwards(found))
    assert len(plan.drops) == 2  # 5.25 of 7 may stay


def test_parameters_and_conventions_count_too(anatomy: Anatomy, found: Blocks) -> None:
    plan = tonsor.plan_blocks(anatomy, "params=60%", by=backwards(found))
    assert anatomy.cost_without(plan.drops).params() <= 0.6 * anatomy.cost.params()
    plan = tonsor.plan_blocks(anatomy, "mac_conv=60%", by=backwards(found))
    assert len(plan.drops) == 4
    plan = tonsor.plan_blocks(anatomy, "spp_speedup=1.5x", by=backwards(found))
    assert plan.made_by["reached"] == pytest.approx(40.55e6 / (40.55e6 - 3 * BLOCK), rel=2e-3)
    assert plan.made_by["whole"] == 1.0
    with pytest.raises(BudgetError, match=r"Ask for spp_speedup=5\.3\d+x"):
        tonsor.plan_blocks(anatomy, "spp_speedup=9x", by=backwards(found))


def test_names_go_whatever_their_scores(anatomy: Anatomy) -> None:
    plan = tonsor.plan_blocks(anatomy, remove=["layer3.2", "layer1.0"])
    assert gone(plan) == ["layer1.0", "layer3.2"]
    assert gone(tonsor.plan_blocks(anatomy, remove="layer1.0")) == ["layer1.0"]


def test_what_is_kept_stays(anatomy: Anatomy, found: Blocks) -> None:
    for keep in (["layer3"], ["layer3.*"], [anatomy.model.get_submodule("layer3")],
                 ["layer3.1.conv1.weight", "layer3.2"]):  # fmt: skip
        plan = tonsor.plan_blocks(anatomy, remove=2, by=backwards(found), keep=keep)
        assert gone(plan) == ["layer2.1", "layer2.2"]


def test_an_earlier_plan_is_gone_on_from(anatomy: Anatomy, found: Blocks) -> None:
    channels = tonsor.plan(anatomy, "macs=70%")
    plan = tonsor.plan_blocks(anatomy, "macs=50%", by=backwards(found), after=channels)
    assert plan.keep == channels.keep
    assert plan.made_by["reached"] <= anatomy.cost.macs() / 2
    more = tonsor.plan_blocks(anatomy, remove=1, by=backwards(found), after=plan)
    assert set(gone(plan)) < set(gone(more))
    slim = more.apply(anatomy.model)
    assert tonsor.inspect(slim, torch.randn(2, 3, 32, 32)).cost.macs() == anatomy.cost_without(
        more.drops
    ).macs(more.counts)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, BudgetError, "either what to keep"),
        ({"budget": "macs=50%", "remove": 1}, BudgetError, "either what to keep"),
        ({"remove": -1}, BudgetError, "a number of blocks"),
        ({"remove": True}, BudgetError, "a number of blocks"),
        ({"remove": 8}, BudgetError, "only 7 of 9 may"),
        ({"remove": ["layer9"]}, SelectionError, "no block is called 'layer9'.*layer1.0"),
        ({"remove": ["layer2.0"]}, SelectionError, "may not go: it turns 16 x 32 x 32 into"),
        ({"budget": "macs=1%"}, BudgetError, r"Ask for macs=18\.6%"),
        ({"remove": 1, "keep": ["stem"]}, SelectionError, "nothing to keep is called 'stem'"),
        ({"remove": 1, "by": "imprint"}, TonsorError, "batches"),
        ({"remove": 1, "by": "l3"}, SelectionError, "no criterion of blocks"),
    ],
)
def test_bad_options_say_what_is_wrong(
    anatomy: Anatomy, options: dict[str, object], error: type[TonsorError], says: str
) -> None:
    with pytest.raises(error, match=says):
        tonsor.plan_blocks(anatomy, **{"by": "l2", **options})  # type: ignore[arg-type]


def test_a_model_without_blocks_says_so() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 3))
    with pytest.raises(SelectionError, match=r"may go|no block was found"):
        tonsor.plan_blocks(tonsor.inspect(net, torch.randn(2, 4)), remove=1, by="l2")


def test_channels_can_not_go_on_from_blocks(anatomy: Anatomy) -> None:
    earlier = tonsor.plan_blocks(anatomy, remove=["layer1.0"])
    with pytest.raises(TonsorError, match=r"later\.rebase"):
        tonsor.plan(anatomy, "macs=50%", after=earlier)


def test_one_call_does_it_all() -> None:
    net = CifarResNet(20)
    slim, report = tonsor.prune_blocks(net, torch.randn(1, 3, 32, 32), remove=2, by="random")
    assert report.macs[0] - report.macs[1] == 2 * BLOCK
    assert report.params[1] == sum(p.numel() for p in slim.parameters())
    assert "2 blocks went" in str(report)
    assert report.proof is not None
    assert report.proof.error < 1e-9
