"""The whole search against one that was written down a second time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.lfpc.by_hand import RATES, ByHand
from tests.methods.lfpc.pictures import drive, learned, made, other, pictures
from tonsor.methods.lfpc import LearnedCriteria, Search

STEPS = 30


def both(seed: int = 0, budget: float = 0.4, **changes: Any) -> tuple[Any, LearnedCriteria, ByHand]:
    net, anatomy = made("chain", seed, double=True)
    options = {
        "warm": 5.0,
        "cold": 0.1,
        "lr": 0.05,
        "rates": RATES,
        "exact": False,
        "tolerance": 0.05,
        **changes,
    }
    odds = other(7, double=True)
    by_hand = ByHand(
        net, odds, math.floor(budget * anatomy.cost.amount("macs")), STEPS, seed=seed,
        straight=options.get("masks") == "straight", even=options.get("begin") == "even",
        decay=options.get("decay", 1e-3),
        refresh=options.get("refresh", 1), upper=options.get("upper_tolerance", True),
    )  # fmt: skip
    method = learned(
        net, anatomy, batches=odds, budget=f"macs={budget:.0%}", steps=STEPS, seed=seed,
        search=Search(**options),
    )  # fmt: skip
    return net, method, by_hand


def close(a: Tensor, b: Tensor, atol: float = 1e-10) -> None:
    torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-10, atol=atol)


# Where what was drawn is the same by all criteria, gradients are zero but for rounding, and Adam
# makes much of that, with weight decay most of all.
STRAIGHT = {"masks": "straight", "decay": 0.0}
WAYS: dict[str, dict[str, Any]] = {
    "soft": {}, "straight": STRAIGHT, "even": {"begin": "even"}, "refresh": {"refresh": 4},
    "straight, even": {**STRAIGHT, "begin": "even"}, "no decay": {"decay": 0.0},
    "no upper tolerance": {"upper_tolerance": False},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_search_is_the_one_that_was_written_by_hand(way: str) -> None:
    net, method, by_hand = both(**WAYS[way])
    close(method.sampler.beta, by_hand.beta)

    def watch(step: int) -> None:
        by_hand.step(data[step])
        close(method.sampler.theta, by_hand.theta, atol)
        close(method.sampler.beta, by_hand.beta, atol)

    atol = 1e-8 if "straight" in way else 1e-10
    data = pictures(STEPS, double=True)
    drive(net, method, data, watch=watch)
    assert method.over
    assert len(by_hand.sides) > 1  # the loss on the cost was there, and was not
    assert float(by_hand.theta.std()) > 0.01
    assert method.decided is not None
    method.release()
    theirs = by_hand.net.state_dict()
    for i, kept in enumerate(method.decided.kept):  # what is gone is at zero by now
        theirs[f"bn{i + 1}.weight"] *= kept
        theirs[f"bn{i + 1}.bias"] *= kept
    for name, tensor in net.state_dict().items():
        close(tensor.double(), theirs[name].double())


@pytest.mark.parametrize("seed", range(3))
def test_each_site_ends_with_what_is_likeliest(seed: int) -> None:
    net, method, by_hand = both(seed, tolerance=1.0, begin="even")
    data = pictures(STEPS, double=True)
    drive(net, method, data)
    decided = method.decided
    assert decided is not None
    criteria, rates = method.sampler.theta, method.sampler.beta
    by_hand.convs = [net.conv1, net.conv2, net.conv3]
    order = by_hand.ranked()  # by the weights as they are at the end of the search
    for i, conv in enumerate(by_hand.convs):
        by, rate = int(criteria[i].argmax()), int(rates[i].argmax())
        left = by_hand.left(RATES[rate], len(conv.weight))
        assert (decided.criteria[i], decided.left[i]) == (by, left)
        assert set(decided.kept[i].nonzero().flatten().tolist()) == set(order[i][by][:left])
