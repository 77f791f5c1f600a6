"""Odds find the criterion that is right, where each is right in one layer and wrong in another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.lfpc.sites import Sites

BUDGET = "pieces=50%"
RIGHT = {"first.weight[0]": "geometric_median", "second.weight[0]": "l2"}
NAMES = tuple(RIGHT)


class Told(nn.Module):
    """Names the largest of four inputs, by four of eight units in each of two layers.

    In the first, the useful units are small, and the others are large copies of one another: by
    norm these would stay, and by their distance they go. In the second, the useful units are large
    and close together, and the others are small and far apart.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(5, 8, bias=False), nn.Linear(8, 8, bias=False))
        self.last = nn.Linear(8, 4, bias=False)
        chance = torch.Generator().manual_seed(seed)
        near, far = torch.randperm(8, generator=chance), torch.randperm(8, generator=chance)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            apart, inverse = _clustered()
            self.first.weight[near[:4], :4] = 0.5 * torch.eye(4)
            self.first.weight[near[4:], 4] = 3.0
            self.second.weight[far[:4, None], near[:4]] = apart
            self.second.weight[far[4:, None], near[4:]] = torch.eye(4)
            self.last.weight[:, far[:4]] = 10 * inverse

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).relu()).relu())


def _clustered() -> tuple[Tensor, Tensor]:
    """Four units that look much the same, and what tells their inputs apart again."""
    units = torch.full((4, 4), 2.0) + 0.5 * torch.eye(4)
    return units, (torch.eye(4) - 0.25) / 0.5


def batches(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    chance = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        x, y = 0.2 * torch.rand(64, 5, generator=chance), torch.randint(4, (64,), generator=chance)
        x[torch.arange(64), y] += 0.8
        found.append((x, y))
    return found


def searched(
    seed: int, steps: int = 60, choice: Any = "learned", train: bool = False,
    criteria: tuple[str, ...] = ("l2", "geometric_median"), **changes: Any,
) -> tuple[Told, LearnedCriteria, tonsor.Plan]:  # fmt: skip
    """Search on the constructed net, with half of each layer to go."""
    net = Told(seed)
    method = LearnedCriteria(
        net, tonsor.inspect(net, torch.rand(2, 5)), budget=BUDGET, steps=steps, choice=choice,
        batches=batches(5, seed=seed + 100), criteria=criteria, seed=seed,
        search=Search(**{"rates": (0.5,), "lr": 0.05, "train_weights": train, **changes}),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    for step, (x, y) in enumerate(batches(steps, seed=seed)):
        F.cross_entropy(net(x), y).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    return net, method, method.finish()


def chosen(plan: tonsor.Plan) -> dict[str, str]:
    return {name: site["criterion"] for name, site in plan.made_by["sites"].items()}


@torch.no_grad()
def loss(seed: int, plan: tonsor.Plan) -> float:
    x, y = batches(1, seed=10_000)[0]
    return float(F.cross_entropy(plan.apply(Told(seed))(x), y))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_each_layer_finds_the_criterion_that_is_right_for_it(masks: Any, seed: int) -> None:
    _, method, plan = searched(seed, masks=masks)
    assert chosen(plan) == RIGHT
    odds = method.sampler.odds().criteria
    assert odds.max(-1).values.min() > 0.75  # and it is sure of it
    learned = loss(seed, plan)
    for by in ("l2", "geometric_median"):
        assert learned < loss(seed, searched(seed, choice={"*": by}, steps=2)[2]) - 0.3


@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_neither_the_order_of_criteria_nor_training_matters(masks: Any) -> None:
    for seed in range(3):
        order = ("geometric_median", "l2")
        assert chosen(searched(seed, masks=masks, criteria=order, train=True)[2]) == RIGHT


@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_of_three_criteria_none_that_is_wrong_is_taken(masks: Any) -> None:
    for seed in range(3):
        found = chosen(searched(seed, masks=masks, criteria=("l1", "l2", "geometric_median"))[2])
        assert found[NAMES[0]] == "geometric_median"
        assert found[NAMES[1]] in ("l1", "l2")


@pytest.mark.parametrize("rates", [(0.25, 0.5, 0.75), (0.375, 0.5, 0.625)])
@pytest.mark.parametrize("turns", ["together", "rates first"])
def test_rates_and_criteria_are_found_together(turns: Any, rates: tuple[float, ...]) -> None:
    """Both layers can do with half of their units, but not with fewer."""
    for seed in range(3):
        _, _, plan = searched(seed, steps=200, rates=rates, turns=turns, exact=False)
        assert chosen(plan) == RIGHT
        assert [site["left"] for site in plan.made_by["sites"].values()] == [4, 4]
        assert loss(seed, plan) < 0.1


def test_odds_that_are_cut_off_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the tests above would fail if the loss did not reach the odds."""
    real = Sites.masks
    monkeypatch.setattr(
        Sites, "masks", lambda self, criteria, rates: real(self, criteria.detach(), rates)
    )
    _, method, plan = searched(0)
    assert chosen(plan) != RIGHT
    assert method.sampler.theta.abs().max() == 0
