"""Parts that an even `chunk` has made must lose as many indices, or none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.errors import PlanError


class Chunks(nn.Module):
    """Each part of one layer goes through a layer of its own."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.up = nn.Linear(5, parts * width)
        self.down = nn.ModuleList(nn.Linear(width, 4) for _ in range(parts))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.up(x).chunk(len(self.down), dim=-1)
        return torch.stack([d(p) for d, p in zip(self.down, parts, strict=True)]).sum(0)


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (2, 2),
        (3, 2),
        (5, 3),
        (2, 4),
        (8, 2),
        (8, 3),
    ],
)  # fmt: skip
def test_even_chunks_are_tied(width: int, parts: int) -> None:
    """Trials cut every part at random, and by luck to sizes that `chunk` gives by itself.

    A chunk of 2 + 1 is 3 in two parts, so a trial of 2 + 1 says nothing of 1 + 2. Parts of
    two indices are always tried as 1 + 1. It would help to also try each part cut alone.
    """
    anatomy = tonsor.inspect(Chunks(width, parts), torch.randn(2, 5))
    free = anatomy.prunable
    assert not free or (len({g.tie for g in free}) == 1 and free[0].tie is not None)


def test_merging_plans_keeps_ties() -> None:
    model, x = Chunks(8, 2), torch.randn(2, 5)
    plan = tonsor.plan(tonsor.inspect(model, x), "params=80%")
    assert set(plan.counts.values()) == {6}
    first, second = plan.keep
    one = replace(plan, keep={first: (0, 1, 2, 3, 4, 5), second: (0, 1, 2, 3, 4, 5)})
    two = replace(plan, keep={first: (0, 1, 2, 3, 4, 5), second: (2, 3, 4, 5, 6, 7)})
    for proven in (one, two):
        proven.apply(model)
    with pytest.raises(PlanError, match=r"8 → 6, .* 8 → 4 would not go in step"):
        one.merge(two)
    torn = replace(plan, keep={first: (0, 1, 2, 3, 4, 5), second: (2, 3, 4, 5)})
    with pytest.raises(PlanError, match="would not go in step"):
        torn.apply(model, verify=False)
    assert one.merge(replace(two, keep=dict(one.keep))).keep == one.keep
