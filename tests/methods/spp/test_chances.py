from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.spp.pools import SEED, SETTINGS, driven, made, noise, whole
from tonsor.methods.spp.chances import Chances, Pool
from tonsor.methods.spp.increment import Increment

SIZES = st.lists(st.integers(2, 40), min_size=1, max_size=4)
PERCENT = st.integers(0, 49)


# ---------------------------------------------------------------- one update, by the book


def by_hand(chance: list[float], scores: list[float], gone: set[int], pool: Pool,
            options: dict[str, Any]) -> tuple[list[float], set[int]]:  # fmt: skip
    """An update of one pool in plain numbers."""
    increment: Increment = options["increment"]
    left = sorted((i for i in range(len(scores)) if i not in gone), key=lambda i: (scores[i], i))
    to_go = pool.quota - len(gone)
    adaptive = options["alpha"] == "adaptive"
    goal, end = (to_go, to_go) if adaptive else (pool.goal, pool.quota)
    full, new = [], list(chance)
    for rank, i in enumerate(left):
        r = float(rank)
        if options["scores"] == "size":
            high = scores[left[min(end, len(left) - 1)]] - scores[left[0]]
            r = (goal if end < len(left) else len(left) - 1) * (scores[i] - scores[left[0]]) / high
        if increment.shape == "linear":
            change = increment.most * (1 - r / goal)
        else:
            alpha = (math.log(2) - math.log(increment.centre)) / goal
            middle = -math.log(increment.centre) / alpha
            if r <= middle:
                change = increment.most * math.exp(-alpha * r)
            else:
                power = min(500.0, -alpha * (2 * middle - r))
                change = increment.most * (2 * increment.centre - math.exp(power))
        if not increment.recovery:
            change = max(0.0, change)
        new[i] = min(1.0, max(0.0, chance[i] + change))
        if new[i] > 1 - 1e-9:
            full.append(i)
    lost = gone | set(full[:to_go])
    over = len(lost) == pool.quota
    return [1.0 if i in lost else 0.0 if over else new[i] for i in range(len(new))], lost


@given(st.integers(2, 30), st.integers(1, 90), SEED, SETTINGS)
@settings(max_examples=60)
def test_updates_are_those_by_hand(
    size: int, percent: int, seed: int, options: dict[str, Any]
) -> None:
    ratio = min(percent / 100, (size - 1) / size)
    chances = made([size], ratio, **options)
    (pool,) = chances.pools
    chance, gone, past = [0.0] * size, set[int](), [0.0] * size
    generator = torch.Generator().manual_seed(seed)
    for count in range(40):
        if pool.ended:
            break
        scores = torch.randn(size, generator=generator, dtype=torch.float64)
        past = [options["history"] * p + s for p, s in zip(past, scores.tolist(), strict=True)]
        chance, gone = by_hand(chance, past, gone, pool, options)
        chances.update([scores])
        assert pool.chance.tolist() == pytest.approx(chance, abs=1e-9)
        assert set(pool.gone.nonzero().flatten().tolist()) == gone
        assert (pool.lost, pool.left, pool.updates) == (len(gone), size - len(gone), count + 1)
        assert pool.ended == ("reached" if len(gone) == pool.quota else "")
        assert pool.sparsity == len(gone) / size


@pytest.mark.parametrize("updates", [1, 5, 10, 20, 30])
def test_what_is_always_lowest_goes_after_as_many_steps_as_make_one(updates: int) -> None:
    chances = made([10], 0.5, increment=Increment(most=1 / updates))
    for _ in range(updates):
        assert chances.pools[0].lost == 0
        chances.update([torch.arange(10.0)])
    assert chances.kept()[0].tolist() == [False] + 9 * [True]


def test_equal_scores_go_by_their_place() -> None:
    ranked, sized = (made([6], 0.5, scores=s) for s in ("rank", "size"))
    for chances in (ranked, sized):
        chances.update([torch.ones(6)])
    assert torch.equal(ranked.pools[0].chance, sized.pools[0].chance)
    assert ranked.pools[0].chance[:4].diff().lt(0).all()


def test_sizes_that_are_far_away_move_more_than_their_rank() -> None:
    scores = torch.tensor([0.0, 0.1, 0.2, 1.0, 1.1, 9.0])
    ranked, sized = (made([6], 0.5, scores=s) for s in ("rank", "size"))
    for chances in (ranked, sized):
        chances.pools[0].chance.fill_(0.9)
        chances.update([scores])
    rank, size = (c.pools[0].chance.tolist() for c in (ranked, sized))
    assert size[1] > rank[1]
    assert (size[3], rank[3]) == pytest.approx((0.9, 0.9), abs=1e-12)
    assert size[5] == 0 < rank[5]


# ---------------------------------------------------------------- quotas


@given(SIZES, PERCENT, SEED, SETTINGS, st.sampled_from([3, 30, 100]))
@settings(max_examples=40)
def test_each_pool_loses_its_quota_exactly(
    sizes: list[int], percent: int, seed: int, options: dict[str, Any], guard: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    there = {n: torch.rand(len(t), generator=generator) < 0.7 for n, t in whole(*sizes).items()}
    for mask in there.values():
        mask[:2] = True
    chances = Chances(dict.fromkeys(there, percent / 100), there, guard=guard, **options)
    before = [pool.quota for pool in chances.pools]
    driven(chances, seed)
    for pool, mask, quota in zip(chances.pools, there.values(), before, strict=True):
        pieces = int(mask.sum())
        assert quota == math.ceil(Fraction(percent, 100) * pieces) == pool.lost
        assert pool.left == pieces - quota
        assert pool.ended in ("reached", "guard")
        assert pool.updates <= guard
        assert pool.ended != "guard" or pool.updates == guard
        assert bool(pool.gone[~mask].all())
        assert torch.equal(pool.chance, pool.gone.double())


@given(st.integers(1, 3000), st.data())
def test_quotas_are_not_off_by_what_floats_lose(pieces: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, pieces - 1))
    for ratio in (wanted / pieces, 1 - (pieces - wanted) / pieces):
        assert made([pieces], ratio).pools[0].quota == wanted


@given(SIZES, PERCENT, SEED, st.integers(0, 40))
@settings(max_examples=30)
def test_what_is_left_to_go_can_go_at_once(
    sizes: list[int], percent: int, seed: int, updates: int
) -> None:
    chances = driven(made(sizes, percent / 100), seed, updates)
    before = [(pool.gone.clone(), pool.quota - pool.lost, pool.ended) for pool in chances.pools]
    scores = noise(chances, torch.Generator().manual_seed(seed + 1))
    taken = chances.finish_now(scores)
    assert list(taken.values()) == [count for _, count, _ in before]
    assert chances.over
    for pool, score, (gone, count, ended) in zip(chances.pools, scores, before, strict=True):
        lowest = sorted((~gone).nonzero().flatten().tolist(), key=lambda i: float(score[i]))
        assert set((pool.gone & ~gone).nonzero().flatten().tolist()) == set(lowest[:count])
        assert pool.ended == (ended or "guard")
        assert torch.equal(pool.chance, pool.gone.double())


def test_when_too_many_are_full_at_once_the_lowest_go() -> None:
    chances = made([8], 0.5)
    (pool,) = chances.pools
    pool.chance.fill_(0.97)
    chances.update([torch.tensor([8.0, 1, 7, 2, 6, 3, 5, 4])])
    assert pool.gone.nonzero().flatten().tolist() == [1]
    pool.chance[~pool.gone] = 0.999
    chances.update([torch.tensor([4.0, 0, 3.5, 2, 8, 3, 1, 2])])
    assert pool.ended == "reached"
    assert pool.gone.nonzero().flatten().tolist() == [1, 3, 6, 7]


def test_the_guard_ends_what_does_not_end_by_itself() -> None:
    chances = made([100], 0.5, alpha="adaptive", guard=60)
    (pool,) = driven(chances, updates=59).pools
    assert pool.ended == ""
    assert pool.lost < 50
    gone, last = pool.gone.clone(), torch.randn(100, generator=torch.Generator().manual_seed(9))
    chances.update([last])
    assert (pool.ended, pool.lost, pool.updates) == ("guard", 50, 60)
    assert last[pool.gone & ~gone].max() < last[~pool.gone].min()


def test_a_pool_that_is_over_is_left_alone_while_others_go_on() -> None:
    there = whole(10, 10, 0)
    chances = Chances(dict(zip(there, (0.0, 0.5, 0.9), strict=True)), there, increment=Increment())
    assert [pool.ended for pool in chances.pools] == ["reached", "", "reached"]
    chances.update([torch.full((10,), math.nan), torch.arange(10.0), torch.ones(0)])
    first, second, empty = chances.pools
    assert (first.updates, second.updates, empty.updates) == (0, 1, 0)
    assert first.chance.sum() == 0 < second.chance.sum()
    assert empty.sparsity == 0


def test_when_stopped_all_that_is_left_stays() -> None:
    chances = made([20, 2], 0.5)
    for _ in range(21):
        chances.update([torch.arange(20.0), torch.arange(2.0)])
    gone = [pool.gone.clone() for pool in chances.pools]
    assert chances.pools[1].ended == "reached"
    chances.stop()
    assert chances.over
    assert [pool.ended for pool in chances.pools] == ["stopped", "reached"]
    for kept, drawn, lost in zip(chances.kept(), chances.draw(), gone, strict=True):
        assert torch.equal(kept, ~lost)
        assert torch.equal(drawn, ~lost)
    assert chances.finish_now([torch.zeros(20), torch.zeros(2)]) == {"pool 0": 0, "pool 1": 0}


# ---------------------------------------------------------------- recovery


def wavering(recovery: bool, until: int = 1000) -> Chances:
    """Piece 0 looks worst for twelve updates, then best, worst again for ten, and best for good."""
    chances = made([100], 0.5, increment=Increment(recovery=recovery))
    for count in range(until):
        if chances.over:
            break
        scores = torch.arange(100.0)
        scores[0] = -1.0 if count < 12 or 20 <= count < 30 else 1000.0
        chances.update([scores])
    return chances


def test_a_piece_that_looked_worst_early_may_recover() -> None:
    tracks = [float(wavering(True, until).pools[0].chance[0]) for until in range(12, 17)]
    assert tracks[0] == pytest.approx(0.6)
    assert tracks == sorted(tracks, reverse=True)
    assert tracks[-1] < 0.1
    survived, lost = wavering(True), wavering(False)
    assert survived.pools[0].ended == lost.pools[0].ended == "reached"
    assert bool(survived.kept()[0][0])
    assert not bool(lost.kept()[0][0])
    greedy = wavering(True, 12)
    greedy.finish_now([torch.tensor([-1.0, *range(1, 100)])])
    assert not bool(greedy.kept()[0][0])


@given(SEED)
@settings(max_examples=20)
def test_chances_fall_beyond_the_goal_and_rise_before_it(seed: int) -> None:
    chances = made([40], 0.5)
    (pool,) = chances.pools
    generator = torch.Generator().manual_seed(seed)
    pool.chance = 0.1 + 0.8 * torch.rand(40, generator=generator).double()
    before, scores = pool.chance.clone(), torch.randn(40, generator=generator)
    chances.update([scores])
    ranks = scores.argsort().argsort()
    assert bool((pool.chance[ranks < 20] > before[ranks < 20]).all())
    assert bool((pool.chance[ranks > 20] < before[ranks > 20]).all())


# ---------------------------------------------------------------- history


def test_observed_scores_are_not_added_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    watched, told, plain = (made([30], 0.5, history=h) for h in (0.5, 0.5, 0.0))
    for _ in range(10):
        past = torch.zeros(30, dtype=torch.float64)
        first, second = (torch.randn(30, generator=generator).double() for _ in range(2))
        past = first * 0.5 + second
        for chances in (watched, told, plain):
            chances.load_state_dict(made([30], 0.5).state_dict())
        watched.observe([first])
        watched.observe([second])
        watched.update([second])
        told.load_state_dict(told.state_dict() | {"past": [first]})
        told.update([second])
        plain.observe([first])
        plain.update([past])
        for chances in (watched, told):
            assert torch.equal(chances.pools[0].chance, plain.pools[0].chance)
