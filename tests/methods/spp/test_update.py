"""The steps of SPP, written down a second time and run beside ours."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.methods.spp.by_hand import ByHand
from tests.methods.spp.nets import chances, drive, gone, made, masks, pictures
from tonsor.methods.spp import ByChance

SETTING: dict[str, Any] = {"ratio": 0.6, "interval": 2, "most": 0.1, "centre": 0.25}


def both(
    kind: str, steps: int, *, caffe: bool = False, attached: bool = True, lr: float = 0.05
) -> tuple[ByHand, ByChance, Any, list[int]]:
    """Run both side by side, and compare all that they have after each step."""
    net, anatomy = made(kind, double=True)
    other = ByHand(net, **SETTING, caffe=caffe, attached=attached, lr=lr)
    method = ByChance(net, anatomy, **SETTING, gradient="caffe" if caffe else "masked", seed=7)
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    data = pictures(steps, double=True)
    shown: list[dict[str, Tensor]] = [drawn(net)]
    masked: list[int] = []

    def watch(step: int) -> None:
        other.step(step, data[step], shown[-1])
        assert gone(method) == other.lost
        for ours, theirs in zip(chances(method), other.chance.values(), strict=True):
            torch.testing.assert_close(
                ours, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-9
            )
        equal(other, net)
        shown.append(drawn(net))
        masked.append(sum(int((m == 0).sum()) for m in shown[-1].values()))
        for name, mask in shown[-1].items():
            assert not mask.flatten()[sorted(other.lost[name])].any()

    if not attached:
        method.attach = lambda optimizer: None
    drive(net, method, data, optimizer=optimizer, watch=watch)
    return other, method, net, masked


def drawn(net: nn.Module) -> dict[str, Tensor]:
    return {n.removesuffix(".weight"): m.drawn.clone() for n, m in masks(net).items()}


def equal(other: ByHand, net: nn.Module) -> None:
    """What is gone is zero with them, and only masked with us."""
    theirs = other.net.state_dict()
    for name, tensor in net.state_dict().items():
        path = name.replace(".parametrizations.weight.original", ".weight")
        conv = path.removesuffix(".weight")
        stays = torch.ones_like(tensor)
        if conv in other.lost and path.endswith("weight"):
            stays.flatten(1)[:, sorted(other.lost[conv])] = 0
        torch.testing.assert_close(tensor * stays, theirs[path], rtol=0, atol=1e-12, msg=path)


@pytest.mark.parametrize("kind", ["chain", "residual bias"])
@pytest.mark.parametrize("attached", [True, False])
def test_the_steps_are_those_of_the_paper(kind: str, attached: bool) -> None:
    other, method, net, masked = both(kind, 260, attached=attached)
    sizes = {n: len(c) for n, c in other.chance.items()}
    lost = {n: len(some) for n, some in gone(method).items()}
    assert lost == {n: -(-6 * size // 10) for n, size in sizes.items()}
    ends = {pool.updates for pool in method.chances.pools}
    assert all(20 < updates < 110 for updates in ends)  # and 40 steps of training after that
    assert len(set(masked)) > 30  # drawn anew each time
    assert masked[-40:] == [sum(lost.values())] * 40
    assert method.over
    before = net.eval()(pictures(1, seed=4, double=True)[0][0])
    method.finish()
    theirs = other.net.state_dict()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(net(pictures(1, seed=4, double=True)[0][0]), before, rtol=0, atol=0)


def test_layers_end_one_by_one() -> None:
    net, anatomy = made("residual")
    ratio = {"stem": 0.4, "first": 0.4, "second": 0.8}
    method = ByChance(net, anatomy, ratio=ratio, interval=1, most=0.2)
    ended: list[set[str]] = []
    drive(net, method, pictures(80), watch=lambda _: ended.append(
        {p.name for p in method.chances.pools if p.ended}))  # fmt: skip
    assert all(a <= b for a, b in itertools.pairwise(ended))
    assert len({frozenset(names) for names in ended}) >= 3
    assert ended[-1] == ratio.keys()


@pytest.mark.parametrize("interval", [1, 3, 7])
def test_chances_change_at_each_interval_and_not_in_between(interval: int) -> None:
    net, anatomy = made("chain")
    method = ByChance(net, anatomy, ratio=0.5, interval=interval)
    before: list[list[Tensor]] = [chances(method)]

    def watch(step: int) -> None:
        now = chances(method)
        same = all(torch.equal(a, b) for a, b in zip(before[-1], now, strict=True))
        assert same == ((step + 1) % interval != 0)
        before.append(now)

    drive(net, method, pictures(15), watch=watch)
    assert [m.step for m in method.history] == [s for s in range(15) if (s + 1) % interval == 0]


def test_momentum_of_adam_goes_too_and_variance_stays() -> None:
    net, anatomy = made("chain")
    method = ByChance(net, anatomy, ratio=0.5, interval=1, most=0.3)
    adam = torch.optim.AdamW(net.parameters(), lr=1e-3)
    drive(net, method, pictures(6), optimizer=adam)
    (images, labels) = pictures(1)[0]
    nn.functional.cross_entropy(net(images), labels).backward()
    seen = {n: m.drawn.bool() for n, m in masks(net).items()}
    weights = {n: held[0].weight for n, held in method.pools.held.items()}
    variance = {n: adam.state[w]["exp_avg_sq"].clone() for n, w in weights.items()}
    first = {n: adam.state[w]["exp_avg"].clone() for n, w in weights.items()}
    method.before_step(6)
    masked = 0
    for name, weight in weights.items():
        mask = seen[f"{name}.weight"]
        assert torch.equal(adam.state[weight]["exp_avg"], first[name] * mask)
        assert torch.equal(adam.state[weight]["exp_avg_sq"], variance[name])
        masked += int((first[name] != first[name] * mask).sum())
    assert masked > 0


def test_older_scores_count_with_history() -> None:
    net, anatomy = made("chain")
    method = ByChance(net, anatomy, ratio=0.5, interval=4, history=0.9)
    past = [torch.zeros(p.size, dtype=torch.float64) for p in method.chances.pools]
    weights = [held[0].weight for held in method.pools.held.values()]

    def watch(step: int) -> None:
        for total, weight in zip(past, weights, strict=True):
            total.mul_(0.9).add_(weight.detach().double().flatten(1).abs().sum(0))
        if step == 3:
            differs, last = 0, [w.detach().flatten(1).abs().sum(0) for w in weights]
            for total, pool, score in zip(past, method.chances.pools, last, strict=True):
                assert bool((pool.chance[total.argsort()].diff() <= 0).all())
                differs += int((total.argsort() != score.argsort()).sum())
            assert differs > 0

    drive(net, method, pictures(4), watch=watch)
