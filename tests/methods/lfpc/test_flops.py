from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.methods.lfpc.nets import made
from tonsor.methods.lfpc.flops import flop_loss
from tonsor.methods.lfpc.sites import Sites
from tonsor.methods.pools.base import Expected, Wanted
from tonsor.methods.pools.make import pools_of

RATES = (0.0, 0.25, 0.5, 0.75)
NETS = ["normed", "resnet20", "inverted", "chunked", "grouped"]


@given(st.floats(1, 1e12), st.floats(0, 0.9), st.floats(0.01, 3), st.booleans())
def test_there_are_three_regions(target: float, tolerance: float, part: float, upper: bool) -> None:
    expected = torch.tensor(part * target, dtype=torch.float64)
    found = float(flop_loss(expected, part * target, target, tolerance, upper=upper))
    log = math.log(part * target)
    high, low = (1 + tolerance) * target if upper else target, (1 - tolerance) * target
    wanted = log if part * target > high else -log if part * target < low else 0.0
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("upper", [True, False])
def test_both_ends_are_within(upper: bool) -> None:
    e, target, tolerance = torch.tensor(7.0), 64.0, 0.25  # all exact in binary
    highest = 80.0 if upper else 64.0

    def at(actual: float) -> float:
        return float(flop_loss(e, actual, target, tolerance, upper=upper))

    assert at(highest) == at(48.0) == 0
    assert at(math.nextafter(highest, math.inf)) == pytest.approx(math.log(7))
    assert at(math.nextafter(48.0, 0)) == pytest.approx(-math.log(7))


def drawn_up(name: str, target: str = "macs") -> tuple[Sites, Expected, Tensor]:
    """The sites of a net, its cost, and logits of rates that are not all the same."""
    net, anatomy = made(name)
    pools = pools_of(anatomy, "channels", Wanted(learned=True))
    sites = Sites(pools, 1, RATES)
    sites.rank(pools.scores())
    beta = torch.randn(len(sites), 4, generator=torch.Generator().manual_seed(1)).double()
    assert net is anatomy.model
    return sites, pools.expected(target), beta.requires_grad_()


def cost(sites: Sites, expected: Expected, beta: Tensor) -> Tensor:
    one = torch.ones(len(sites), 1, dtype=torch.float64)
    return expected(sites.masks(one, beta.softmax(-1)))


@pytest.mark.parametrize("target", ["macs", "params"])
@pytest.mark.parametrize("name", NETS)
def test_a_step_brings_the_cost_nearer_and_within_nothing_is_asked(name: str, target: str) -> None:
    sites, expected, beta = drawn_up(name, target)
    now = float(cost(sites, expected, beta).detach())
    for part, sign in ((0.5, -1), (1.0, 0), (2.0, 1)):  # what is expected is too much, right, less
        e = cost(sites, expected, beta)
        loss = flop_loss(e, now, part * now, 0.05)
        if not sign:
            assert not loss.requires_grad
            assert float(loss) == 0
            continue
        (gradient,) = torch.autograd.grad(loss, beta)
        assert bool(gradient.any())
        after = float(cost(sites, expected, (beta - 0.01 * gradient).detach()))
        assert sign * (after - now) > 0
        # odds of the lowest rate of each site fall where it is too dear, and rise where too cheap
        assert bool((sign * gradient[:, 0] < 0).all())
        assert bool((sign * gradient[:, -1] > 0).all())


@pytest.mark.parametrize("name", NETS)
def test_the_unit_of_the_cost_does_not_matter(name: str) -> None:
    sites, expected, beta = drawn_up(name)
    found: list[Any] = []
    for unit in (1.0, 1e-6, 1e6):
        e = unit * cost(sites, expected, beta)
        found.append(torch.autograd.grad(flop_loss(e, 2 * unit, unit, 0.05), beta)[0])
        assert not flop_loss(e, 1.04 * unit, unit, 0.05).requires_grad
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=1e-12)
