from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import tonsor
from tests.methods.lfpc.nets import images, labelled, made
from tonsor.criteria.score import Scores, score
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.lfpc.gumbel import gumbel, relaxed
from tonsor.methods.lfpc.sites import Sites
from tonsor.methods.pools.base import Wanted
from tonsor.methods.pools.make import pools_of
from tonsor.select.rank import make_lane

CRITERIA = ("l1", "l2", "geometric_median")
RATES = (0.0, 0.3, 0.5, 0.7)
TIED = ["mixer", "grouped", "chunked", "resnet20", "group norm"]


def by_hand(weight: Tensor, by: str) -> list[float]:
    """The score of each filter."""
    rows = weight.detach().flatten(1).double()
    if by == "l1":
        return [float(sum(abs(w) for w in row.tolist())) for row in rows]
    if by == "l2":
        return [math.sqrt(sum(w * w for w in row.tolist())) for row in rows]
    return [sum(float((a - b).norm()) for b in rows) for a in rows]


def stays(scores: list[float], left: int) -> list[int]:
    """The best so many; of equal scores the last."""
    return sorted(sorted(range(len(scores)), key=lambda i: (scores[i], i))[-left:])


def count(rate: float, of: int) -> int:
    return max(1, math.floor((1 - rate) * of + 0.5))


def conv_sites(weight: Tensor, rates: tuple[float, ...]) -> Sites:
    """One site, the filters of one convolution."""
    there = {"w": torch.ones(len(weight), dtype=torch.bool)}
    sites = Sites(SimpleNamespace(there=there, tied=[{"w": 1}]), 3, rates)  # type: ignore[arg-type]
    sites.rank([torch.tensor([by_hand(weight, by) for by in CRITERIA], dtype=torch.float64)])
    return sites


def in_branches(
    weight: Tensor, rates: tuple[float, ...], p: Tensor, q: Tensor, branch: Any, like: Tensor
) -> Tensor:
    """A layer as the paper has it: filters that stay run, are put back and weighed."""
    whole = torch.zeros_like(like)
    for s, by in enumerate(CRITERIA):
        for k, rate in enumerate(rates):
            kept = stays(by_hand(weight, by), count(rate, len(weight)))
            aligned = torch.zeros_like(like).index_copy(1, torch.tensor(kept), branch(kept))
            whole = whole + (p[s] * q[k]).to(like) * aligned
    return whole


@settings(max_examples=40)
@given(
    st.integers(1, 9), st.integers(1, 3), st.sampled_from([1, 3]), st.booleans(),
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.6, 0.9]), min_size=1, max_size=4, unique=True),
    st.sampled_from([torch.float64, torch.float32]), st.integers(0, 999),
)  # fmt: skip
def test_one_mask_is_all_branches(
    made: int, given: int, kernel: int, hard: bool, rates: list[float], dtype: torch.dtype,
    seed: int,
) -> None:  # fmt: skip
    generator, rates_of = torch.Generator().manual_seed(seed), tuple(sorted(rates))

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, x = (randn(made, given, kernel, kernel) / (given * kernel**2) ** 0.5).to(dtype), None
    theta, beta = randn(1, 3).requires_grad_(), randn(1, len(rates)).requires_grad_()
    x = randn(2, given, 5, 5).to(dtype).requires_grad_()
    p = relaxed(theta, 1.0, gumbel((1, 3), generator), hard=hard)
    q = relaxed(beta, 1.0, gumbel((1, len(rates)), generator), hard=hard)
    (mask,) = conv_sites(weight, rates_of).masks(p, q)
    plain = F.conv2d(x, weight)
    worth = randn(*plain.shape).to(dtype) / plain.numel() ** 0.5
    ways = [
        plain * mask.to(dtype)[:, None, None],
        F.conv2d(x, weight * mask.to(dtype)[:, None, None, None]),
        in_branches(weight, rates_of, p[0], q[0], lambda kept: F.conv2d(x, weight[kept]), plain),
    ]
    found = [
        (y, *torch.autograd.grad((y * worth).sum(), [theta, beta, x], retain_graph=True))
        for y in ways
    ]
    near = 1e-12 if dtype == torch.float64 else 1e-6
    for way in found[:2]:
        for mine, other in zip(way, found[2], strict=True):
            torch.testing.assert_close(mine, other, rtol=4 * near, atol=4 * near)
    if hard:
        assert int(mask.sum()) == count(rates_of[int(q[0].argmax())], made)
        assert set(mask.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("masks", ["soft", "straight"])
def test_masks_of_a_net_with_norms_are_all_branches(masks: Any, dtype: torch.dtype) -> None:
    net, anatomy = made("normed", dtype)
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    net.train()
    method = LearnedCriteria(
        net, anatomy, budget="macs=60%", batches=labelled(1), steps=10,
        search=Search(rates=RATES, masks=masks),
    )  # fmt: skip
    drawn = method.sampler.draw()
    method.pools.show_(method.sites.masks(drawn.criteria, drawn.rates))
    x = images(4, 1, dtype).requires_grad_()
    worth = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)

    def layer(x: Tensor, number: int, conv: str, norm: str) -> Tensor:
        weight, bias = weights[f"{conv}.weight"], weights.get(f"{conv}.bias")
        scale, shift = weights[f"{norm}.weight"], weights[f"{norm}.bias"]

        def branch(kept: list[int]) -> Tensor:
            mine = None if bias is None else bias[kept]
            y = F.conv2d(x, weight[kept], mine, padding=1)
            return F.batch_norm(y, None, None, scale[kept], shift[kept], training=True)

        p, q = drawn.criteria[number], drawn.rates[number]
        like = F.conv2d(x, weight, padding=1)
        return in_branches(weight, RATES, p, q, branch, like).relu()

    y = layer(layer(x, 0, "one", "norm1"), 1, "two", "norm2").mean((2, 3))
    explicit = F.linear(y, weights["fc.weight"], weights["fc.bias"])
    assert [s.name for s in method.sites.every] == ["one.weight[0]", "two.weight[0]"]
    wanted = [method.sampler.theta, method.sampler.beta, x]
    found = [
        (y, *torch.autograd.grad((y * worth).sum(), wanted, retain_graph=True))
        for y in (net(x), explicit)
    ]
    near = 1e-12 if dtype == torch.float64 else 1e-6
    for mine, other in zip(*found, strict=True):
        assert bool(other.any())
        torch.testing.assert_close(mine, other, rtol=10 * near, atol=4 * near)
    method.release()


def held_up(
    name: str, by: tuple[str | Scores, ...] = ("l1",), after: Any = None, round_to: int = 1
) -> tuple[Any, Sites]:
    _, anatomy = made(name)
    pools = pools_of(anatomy, "channels", Wanted(by, learned=True, after=after, combine="producer"))
    sites = Sites(pools, len(by), RATES, round_to)
    sites.rank(pools.scores())
    return anatomy, sites


@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(1, 9))
def test_so_many_stay_at_a_rate(size: int, rate: float, round_to: int) -> None:
    pools: Any = SimpleNamespace(there={"w": torch.ones(size, dtype=torch.bool)}, tied=[{"w": 1}])
    sites = Sites(pools, 1, (rate,), round_to)
    ((left,),) = [s.left for s in sites.every]
    wanted = (1 - rate) * size
    steps = [*range(round_to, size + 1, round_to), size]
    assert left in steps
    assert abs(left - wanted) <= min(abs(n - wanted) for n in steps) + 1e-9 or left == size
    if round_to == 1:
        assert left == max(1, math.floor(wanted + 0.5))
    one = torch.ones(1, 1, dtype=torch.float64)
    assert int(sites.masks(one, one)[0].sum()) == left


@pytest.mark.parametrize("round_to", [1, 2])
@pytest.mark.parametrize("name", TIED)
def test_pieces_go_in_the_order_of_plans_together_with_what_is_tied(
    name: str, round_to: int
) -> None:
    anatomy, sites = held_up(name, round_to=round_to)
    scores = score(anatomy, "l1", combine="producer")
    pools = [g.name for g in anatomy.prunable]
    bundles = [[anatomy.by_name[pools[p]] for p in s.pools] for s in sites.every]
    assert sum(len(b) for b in bundles) == len(pools)
    for k, rate in enumerate(RATES):
        left = [s.left[k] for s in sites.every]
        kept = sites.kept([0] * len(sites), left)
        single = torch.eye(len(RATES), dtype=torch.float64)[k].expand(len(sites), -1)
        ones = torch.ones(len(sites), 1, dtype=torch.float64)
        assert all(
            torch.equal(m, x.double())
            for m, x in zip(sites.masks(ones, single), kept, strict=True)
        )  # fmt: skip
        for site, bundle, n in zip(sites.every, bundles, left, strict=True):
            lane = make_lane(bundle, scores, "global", 1, 1)
            wanted = lane.kept_indices(site.steps - n)
            for pool in site.pools:
                assert tuple(kept[pool].nonzero().flatten().tolist()) == wanted[pools[pool]]
            first = bundle[0]
            assert n * first.unit % round_to == 0 or n == site.steps or n == 1
            if n * first.unit > 1 and rate:
                plan = tonsor.plan(anatomy, by=scores, ratios={first.name: n * first.unit})
                assert {x: plan.keep.get(x, w) for x, w in wanted.items()} == wanted


def test_of_equal_scores_the_first_goes_first() -> None:
    _, anatomy = made("normed")
    given = Scores({"one.weight[0]": np.array([1.0, 2, 1, 2, 1, 2]),
                    "two.weight[0]": np.array([3.0, 3, 3, 3, 3])}, "given", {})  # fmt: skip
    _, sites = held_up("normed", (given,))
    for left in range(1, 6):
        kept = sites.kept([0, 0], [left, left])
        assert kept[0].nonzero().flatten().tolist() == stays([1.0, 2, 1, 2, 1, 2], left)
        assert kept[1].nonzero().flatten().tolist() == list(range(5 - left, 5))
        plan = tonsor.plan(anatomy, by=given, ratios={"one*": left / 6, "two*": left / 5})
        for name, mine in zip(("one.weight[0]", "two.weight[0]"), kept, strict=True):
            whole = tuple(range(len(mine)))
            assert tuple(mine.nonzero().flatten().tolist()) == plan.keep.get(name, whole)


@pytest.mark.parametrize("name", ["resnet20", "mixer", "normed"])
def test_what_an_earlier_plan_removes_does_not_come_back(name: str) -> None:
    _, anatomy = made(name)
    after = tonsor.plan(anatomy, by="random", ratios={"*": 0.6})
    anatomy, sites = held_up(name, CRITERIA, after)
    names = [g.name for g in anatomy.prunable]
    generator = torch.Generator().manual_seed(0)
    size = (len(sites), len(RATES))
    gone = 0
    for criteria, rates in [
        (torch.rand(len(sites), 3, generator=generator), torch.rand(size, generator=generator)),
        (torch.ones(len(sites), 3) / 3, torch.eye(len(RATES))[0].expand(size)),
    ]:
        for pool, mask in zip(names, sites.masks(criteria.double(), rates.double()), strict=True):
            left = after.keep.get(pool, tuple(range(len(mask))))
            out = torch.ones(len(mask), dtype=torch.bool)
            out[list(left)] = False
            gone += int(out.sum())
            assert not mask[out].any()
            if rates[0, 0] == 1 and rates[0, 1] == 0:
                assert mask[~out].tolist() == pytest.approx(
                    [1.0] * len(left)
                )  # a rate of 0 is of what was left
    assert gone > 0
    for site in sites.every:
        assert site.left[0] == site.steps
        assert list(site.left) == [count(r, site.steps) for r in RATES]
