"""What looked unimportant early may come to matter, and survive."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.methods.spp.nets import chances, gone
from tonsor.methods.spp import ByChance

LATE, EARLY, STEPS = 4, 4, 100


class Filters(nn.Module):
    """A convolution and a mean, of which a tap is small at first."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.last = nn.Conv2d(4, 1, 1)
        with torch.no_grad():
            self.conv.weight.flatten(2)[..., LATE] *= 0.02

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.conv(x))


def task(seed: int) -> Any:
    """Pictures, and what depends most on the tap that is small at first."""
    chance = torch.Generator().manual_seed(100 + seed)
    kernel = 0.3 * torch.randn(1, 1, 3, 3, generator=chance)
    kernel.flatten()[LATE] = 2.0
    while True:
        x = torch.randn(32, 1, 8, 8, generator=chance)
        yield x, F.conv2d(x, kernel)


@cache
def run(seed: int, recovery: bool = True) -> tuple[Any, ByChance, list[Tensor], tonsor.Plan]:
    """Train, and return the chances after each update and the greedy plan after a few."""
    net = Filters(seed)
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8))
    method = ByChance(net, anatomy, ratio=0.5, interval=1, keep=["last"], seed=seed,
                      recovery=recovery)  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    method.attach(optimizer)
    track: list[Tensor] = []
    greedy: Any = None
    for step, (x, y) in zip(range(STEPS), task(seed), strict=False):
        F.mse_loss(net(x), y).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        track.append(chances(method)[0])
        if step + 1 == EARLY:
            greedy = greedy_now(net)
    return net, method, track, greedy


def greedy_now(net: Filters) -> tonsor.Plan:
    """Cut what has the lowest norm at this moment."""
    twin = Filters(0)
    with torch.no_grad():
        twin.conv.weight.copy_(net.conv.parametrizations.weight.original)  # pyright: ignore
    anatomy = tonsor.inspect(twin, torch.zeros(2, 1, 8, 8))
    return tonsor.plan_columns(anatomy, "pieces=5", by="l1", keep=["last"], rank="per_layer")


@pytest.mark.parametrize("seed", range(8))
def test_a_tap_that_looked_unimportant_regains_rank_and_survives(seed: int) -> None:
    _, method, track, greedy = run(seed)
    mine = [float(t[LATE]) for t in track]
    assert max(mine) >= 0.15  # it was on its way out
    assert mine[EARLY + 30] == 0  # it fell again
    assert LATE not in gone(method)["conv"]
    assert method.over
    assert len(gone(method)["conv"]) == 5
    kept = next(iter(greedy.columns.values())).mask
    assert not np.asarray(kept)[0, LATE]  # greedy pruning at that moment has lost it


def test_without_recovery_chances_never_fall() -> None:
    for seed in range(8):
        _, _, track, _ = run(seed, False)
        for before, after in itertools.pairwise(track):
            ended = bool(((after == 0) | (after == 1)).all())
            assert ended or bool((after >= before).all())
        peak = max(float(t[LATE]) for t in track)
        alive = [t for t in track if not bool(((t == 0) | (t == 1)).all())]
        assert float(alive[-1][LATE]) == peak >= 0.15
