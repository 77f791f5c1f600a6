"""A search ends near its budget: within the tolerance, or just within the budget itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import tonsor
from tonsor.methods.lfpc import LearnedCriteria, Search


def searched(
    name: str, budget: str, steps: int, seed: int = 0, **changes: Any
) -> tuple[tonsor.Plan, LearnedCriteria]:
    """Search on a network of the zoo, by small random pictures."""
    torch.manual_seed(seed)
    net = tonsor.zoo.build(name)
    chance = torch.Generator().manual_seed(seed)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.randint(0, 10, (4,), generator=chance)
        return torch.randn(4, 3, 8, 8, generator=chance), labels

    method = LearnedCriteria(
        net.train(), tonsor.inspect(net, torch.zeros(2, 3, 8, 8)), budget=budget, steps=steps,
        batches=[batch() for _ in range(4)], seed=seed, search=Search(**{"lr": 0.1, **changes}),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        images, labels = batch()
        F.cross_entropy(net(images), labels).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    assert method.over
    return method.finish(), method


SLOW = pytest.mark.slow


@pytest.mark.parametrize("budget", [50, 30])
@pytest.mark.parametrize("name", ["resnet20", pytest.param("resnet56", marks=SLOW)])
@pytest.mark.parametrize("exact", [False, True])
def test_a_search_ends_near_its_budget(name: str, budget: int, exact: bool) -> None:
    steps = 40 if name == "resnet20" else 25
    plan, method = searched(name, f"macs={budget}%", steps, exact=exact)
    whole, reached = plan.made_by["whole"], plan.made_by["reached"]
    target = whole * budget / 100
    assert plan.made_by["met"]
    if exact:
        assert 0.995 * target <= reached <= target
    else:
        assert abs(reached - target) <= 0.05 * target
    # What is told is what the cut network costs.
    slim = plan.apply(tonsor.zoo.build(name), verify=False)
    costs = tonsor.inspect(slim, torch.zeros(2, 3, 8, 8)).cost
    assert costs.amount("macs") == reached == method.decided.cost  # pyright: ignore


def test_it_is_the_loss_on_the_cost_that_brings_odds_near() -> None:
    """Without it, odds stay about where they began."""

    def expected(weight: float) -> float:
        plan, method = searched("resnet20", "macs=40%", 40, begin="even", weight=weight)
        with torch.no_grad():
            odds = method.sampler.odds()
            cost = float(method._expected(method.sites.masks(odds.criteria, odds.rates)))
        return abs(cost / plan.made_by["whole"] - 0.4)

    far = expected(0.0)
    assert far > 0.05
    assert expected(20.0) < far / 2
