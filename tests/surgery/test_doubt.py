"""A network that makes much of rounding is proven all the same; a wrong one never."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.errors import ProofError
from tonsor.plans import Plan
from tonsor.surgery.precision import TOLERANCE
from tonsor.surgery.proof import Proof


class Turning(nn.Module):
    """Turns so often around the circle that the last digits say where it ends."""

    def __init__(self, large: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(8, 2000)  # so long a sum is added up in stretches, whose ends move
        self.large, self.small = nn.Linear(2000, 32), nn.Linear(2000, 32)
        self.factor = large

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        return self.small(h) + (self.large(h) * self.factor).sin()


def _cut(large: float) -> tuple[nn.Module, Any, Plan]:
    model, x = Turning(large).eval(), torch.randn(16, 8)
    plan = tonsor.plan(tonsor.inspect(model, x), ratios={"first": 0.5})
    return model, plan.apply(model, verify=False), plan


def _prove(large: float, off: float = 0.0) -> Proof:
    model, slim, plan = _cut(large)
    with torch.no_grad():
        slim.small.weight[:, 3] *= 1 + off
    return plan.prove(model, slim)


def test_rounding_that_a_network_blows_up_is_taken_for_what_it_is() -> None:
    proof = _prove(1e7)
    assert TOLERANCE < proof.error <= proof.tolerance < 1e-3
    assert "rounding" in str(proof)


def test_a_network_that_keeps_rounding_small_is_held_to_the_usual_tolerance() -> None:
    proof = _prove(1.0)
    assert proof.tolerance == TOLERANCE
    assert "rounding" not in str(proof)
    with pytest.raises(ProofError, match="differ by"):
        _prove(1.0, off=1e-6)


@pytest.mark.parametrize("large", [1e6, 1e8, 1e10, 1e12])
def test_a_wrong_network_is_refused_however_much_it_makes_of_rounding(large: float) -> None:
    with pytest.raises(ProofError, match="differ by"):
        _prove(large, off=0.5)
