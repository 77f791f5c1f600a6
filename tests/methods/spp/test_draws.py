from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.methods.spp.pools import SEED, SETTINGS, driven, made, noise, whole
from tests.refusals import said
from tonsor.errors import CheckpointError, ScoreError, SelectionError
from tonsor.methods.spp.chances import Chances
from tonsor.methods.spp.increment import Increment

# ---------------------------------------------------------------- draws


def test_draws_are_as_frequent_as_their_chance() -> None:
    chances = made([30, 40], 0.5, seed=5)
    for _ in range(30):
        chances.update([torch.arange(30.0), torch.arange(40.0)])
    for pool in chances.pools:
        pool.chance[~pool.gone] = torch.linspace(0, 0.99, pool.left, dtype=torch.float64)
    count, kept = 3000, [torch.zeros(pool.size) for pool in chances.pools]
    for _ in range(count):
        for total, drawn in zip(kept, chances.draw(), strict=True):
            total += drawn
    for pool, total in zip(chances.pools, kept, strict=True):
        stays = 1 - pool.chance
        sigma = (stays * (1 - stays) / count).sqrt()
        assert bool(((total / count - stays).abs() <= 4.5 * sigma).all())
        assert pool.lost > 0
        assert total[pool.gone].sum() == 0


def test_draws_depend_on_the_seed_alone() -> None:
    def draws(seed: int) -> list[Tensor]:
        chances = driven(made([30, 40], 0.5, seed=seed), updates=10)
        return [mask for _ in range(5) for mask in chances.draw()]

    before = torch.get_rng_state()
    first = draws(1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(77)
    assert all(map(torch.equal, first, draws(1)))
    assert not all(map(torch.equal, first, draws(2)))
    assert not torch.equal(first[0], first[2])


@given(SEED, SETTINGS)
@settings(max_examples=15)
def test_a_run_goes_on_bit_for_bit(seed: int, options: dict[str, Any]) -> None:
    begun = driven(made([12, 20], 0.4, seed=seed, **options), seed, updates=7)
    begun.observe([torch.arange(12.0), torch.arange(20.0)])
    begun.draw()
    file = io.BytesIO()
    torch.save(begun.state_dict(), file)
    again = made([12, 20], 0.4, seed=seed + 1, **options)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for chances in (begun, again):
        chances.update([torch.ones(12), torch.ones(20)])
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    for count in range(60):
        for chances, generator in zip((begun, again), generators, strict=True):
            scores = noise(chances, generator)
            chances.observe(scores)
            if count % 3 == 0:
                chances.update(scores)
        assert all(map(torch.equal, begun.draw(), again.draw()))
        for a, b in zip(begun.pools, again.pools, strict=True):
            assert torch.equal(a.chance, b.chance)
            assert torch.equal(a.gone, b.gone)
            assert (a.updates, a.ended) == (b.updates, b.ended)


# ---------------------------------------------------------------- what is refused


def test_a_state_of_other_pools_is_refused_and_changes_nothing() -> None:
    state = driven(made([12, 20], 0.4), updates=9).state_dict()
    other = {"pool 0": whole(12)["pool 0"], "other": torch.ones(20).bool()}
    masked = whole(12, 20)
    masked["pool 1"][3] = False
    for chances, words in (
        (Chances(dict.fromkeys(other, 0.4), other, increment=Increment()), "'other'"),
        (made([12, 21], 0.4), "'pool 1'"),
        (made([12, 20], 0.5), "'pool 0'"),
        (Chances(dict.fromkeys(masked, 0.4), masked, increment=Increment()), "'pool 1'"),
    ):
        assert words in said(CheckpointError, lambda c=chances: c.load_state_dict(state))
        assert all(pool.updates == 0 for pool in chances.pools)
        assert all(pool.chance.sum() == (~pool.there).sum() for pool in chances.pools)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("history", [0.0, 0.5])
def test_scores_that_are_no_numbers_are_refused(bad: float, history: float) -> None:
    there = whole(6, 8)
    there["pool 1"][2] = False
    chances = Chances(dict.fromkeys(there, 0.5), there, increment=Increment(), history=history)
    scores = [torch.ones(6), torch.ones(8)]
    scores[1][2] = bad
    chances.update(scores)
    assert chances.pools[1].updates == 1
    scores[1][3] = bad
    for act in (chances.update, chances.finish_now):
        assert "'pool 1'" in said(ScoreError, lambda act=act: act(scores))
    assert [pool.updates for pool in chances.pools] == [1, 1]
    assert "{'pool 0': 6, 'pool 1': 8}" in said(ScoreError, lambda: chances.update(scores[:1]))


ONES = torch.ones(4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: made([4], 0.8), "give at most 0.75"),
        (lambda: made([1], 0.5), "give 0"),
        (lambda: made([4], 1.0), "below 1, got 1.0"),
        (lambda: made([4], -0.1), "got -0.1"),
        (lambda: made([4], math.nan), "got nan"),
        (lambda: made([4], 0.5, history=1.0), "history"),
        (lambda: made([4], 0.5, guard=0), "guard"),
        (lambda: made([4], 0.5, alpha="fixed"), "choose one of constant, adaptive"),
        (lambda: made([4], 0.5, scores="l1"), "choose one of rank, size"),
        (lambda: Chances({"a": 0.5}, {"b": ONES}, increment=Increment()), "['a', 'b']"),
        (lambda: Chances({"a": 0.5}, {"a": ONES.float()}, increment=Increment()), "torch.float32"),
        (lambda: Chances({"a": 0.5}, {"a": ONES[None]}, increment=Increment()), "(1, 4)"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(act: Callable[[], Any], words: str) -> None:
    assert words in said(SelectionError, act)
