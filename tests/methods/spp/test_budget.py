from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tonsor
from tests.methods.spp.nets import drive, gone, looks, made, pictures
from tests.refusals import said
from tonsor.errors import BudgetError
from tonsor.methods.spp import ByChance

TARGETS = ["macs=45%", "params=40%", "pieces=35%", "spp_speedup=2.5x"]


def wide() -> tuple[Any, tonsor.Anatomy]:
    """A net in which a piece is a small part of the whole."""
    torch.manual_seed(0)
    net = tonsor.zoo.build("resnet20", channels=1).train()
    return net, tonsor.inspect(net, torch.zeros(2, 1, 8, 8))


def slim_cost(net: Any, plan: tonsor.Plan, target: str) -> int:
    """Count by hand what a plan leaves, on the model that it has cut."""
    slim = plan.apply(net.eval())
    if target == "params":
        return sum(p.numel() for p in slim.parameters())
    counted: list[int] = []

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        counted.append(module.weight.numel() * output[0, 0].numel())

    for module in slim.modules():
        if "Conv" in type(module).__name__ or isinstance(module, torch.nn.Linear):
            module.register_forward_hook(count)
    slim(torch.zeros(1, 1, 8, 8))
    return sum(counted)


def shaken(method: ByChance, updates: int = 100) -> int:
    """Update by weights that are other each time, until all is over; return how often."""
    chance = torch.Generator().manual_seed(1)
    for count in range(updates):
        if method.over:
            return count
        with torch.no_grad():
            for some in method.pools.held.values():
                for one in some:
                    noise = torch.rand(one.weight.shape, generator=chance)
                    one.weight.mul_(0.9 + 0.2 * noise)
        method.after_step(count)
    return updates


@pytest.mark.parametrize("family", ["columns", "stripes", "channels"])
@pytest.mark.parametrize("budget", TARGETS)
def test_all_stops_at_once_just_below_the_budget(budget: str, family: Any) -> None:
    net, anatomy = wide()
    method = ByChance(net, anatomy, family=family, budget=budget, interval=1, most=0.15)
    assert shaken(method) < 100
    lost = gone(method)
    made_by = method.finish().made_by
    assert lost == gone(method)
    assert made_by["met"]
    assert made_by["budget"] == budget
    target, wanted = budget.split("=")
    if "speedup" in target:
        assert 2.5 <= made_by["reached"] <= 2.5 * 1.005
    else:
        limit = float(wanted[:-1]) / 100 * made_by["whole"]
        near = made_by["reached"] >= 0.995 * limit
        assert 0.98 * limit <= made_by["reached"] <= limit
        assert near or family == "channels"  # of which one costs more than that
        assert len(made_by["notes"]) == (not near)
        assert all("pieces are no finer" in note for note in made_by["notes"])


@pytest.mark.parametrize("family", ["columns", "channels"])
@pytest.mark.parametrize("budget", ["macs=45%", "params=40%"])
def test_what_is_reached_is_what_the_cut_model_costs(budget: str, family: Any) -> None:
    net, anatomy = wide()
    method = ByChance(net, anatomy, family=family, budget=budget, interval=1, most=0.3)
    drive(net, method, pictures(2))  # ends early
    plan = method.finish()
    assert any("ended before the pruning did" in n for n in plan.made_by["notes"])
    assert plan.made_by["met"]
    target, kept = budget.split("=")
    cost = slim_cost(net, plan, target)
    whole = anatomy.cost.macs() if target == "macs" else anatomy.cost.params()
    assert cost == plan.made_by["reached"]
    assert 0.995 * float(kept[:-1]) / 100 <= cost / whole <= float(kept[:-1]) / 100


@given(percent=st.integers(30, 95), early=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=8, deadline=None)
def test_one_piece_less_gone_would_miss_the_budget(percent: int, early: bool, seed: int) -> None:
    net, anatomy = made("residual", seed)
    method = ByChance(net, anatomy, budget=f"macs={percent}%", interval=1, most=0.3, seed=seed)
    if not early:
        shaken(method)
    plan = method.finish()
    assert plan.made_by["met"]
    reached, limit = plan.made_by["reached"], percent / 100 * plan.made_by["whole"]
    assert reached <= limit
    # a column costs, at most, one output of all filters
    each = max(64 * 6, 16 * 12)
    assert reached + each > limit


def test_pools_of_few_pieces_keep_one() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 3), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3),
    )  # fmt: skip
    anatomy = tonsor.inspect(net, torch.zeros(2, 2, 8, 8))
    method = ByChance(net, anatomy, budget="macs=20%", interval=1)
    assert method.chances.pools[0].quota == 1
    plan = method.finish()
    assert plan.made_by["met"]
    assert plan.made_by["lost"]["0"] in ([0, 2], [1, 2])


def test_blocks_come_as_near_as_they_can() -> None:
    net, anatomy = wide()
    method = ByChance(net, anatomy, family="blocks", budget="macs=70%", interval=1, most=0.3)
    shaken(method)
    plan = method.finish()
    assert plan.made_by["met"]
    assert plan.made_by["reached"] == slim_cost(net, plan, "macs")
    reached, limit = plan.made_by["reached"], 0.7 * anatomy.cost.macs()
    assert reached <= limit
    assert reached + anatomy.cost.macs() / 9 > limit  # none could be given back


@pytest.mark.parametrize("family", ["columns", "stripes", "channels", "blocks"])
@pytest.mark.parametrize("budget", ["macs=0.01%", "params=0.1%", "spp_speedup=1000x"])
def test_a_budget_out_of_reach_is_refused_and_says_what_is_in_reach(
    family: Any, budget: str
) -> None:
    net, anatomy = wide()
    before = looks(net)
    words = said(BudgetError, lambda: ByChance(net, anatomy, family=family, budget=budget))
    assert "can't be met by pieces that go by chance: with one left of each pool it is" in words
    assert looks(net) == before


def test_the_least_that_is_said_to_be_in_reach_is() -> None:
    net, anatomy = made("residual")
    with pytest.raises(BudgetError) as caught:
        ByChance(net, anatomy, budget="macs=0.1%")
    assert caught.value.minimum is not None
    share = 100 * float(caught.value.minimum) / anatomy.cost.macs()
    method = ByChance(net, anatomy, budget=f"macs={share + 0.01:.4f}%")
    assert method.finish().made_by["met"]
