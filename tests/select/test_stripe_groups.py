"""Filters that keep the same stripes: what a plan takes, it takes of whole groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tonsor
from tests.families.stripe_nets import computed, followed, seen, zeroed
from tests.refusals import said
from tests.select.stripe_choice import amount, masks_of, scores_of
from tonsor.criteria.score import Scores
from tonsor.errors import BudgetError, SelectionError
from tonsor.families.stripes.groups import shared_by
from tonsor.fibres import FibreMask
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import plan_columns, plan_stripes
from tonsor.select.fibres.sharing import Sharing

NAMES = st.sampled_from(["plain", "grouped", "one dimension", "three dimensions", "dense", "flat"])
SIZES = st.integers(2, 7)


def blocks(rows: list[int], size: int) -> list[list[int]]:
    """Divide rows into groups, by hand."""
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def even(mask: FibreMask, size: int, rows: list[int] | None = None) -> bool:
    """Whether the filters of each group keep the same stripes."""
    rows = list(range(len(mask))) if rows is None else rows
    return all((mask[b] == mask[b[0]]).all() for b in blocks(rows, size))


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_what_is_shared_is_counted(filters: int, positions: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((filters, positions)) < 0.6
    mask = mask[np.arange(filters) // 2] if seed % 2 else mask
    fitting = [g for g in range(1, filters + 1) if even(mask, g)]
    assert shared_by(mask) == max(fitting)


@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(0, 999))
def test_only_what_is_there_counts_in_a_group(
    filters: int, positions: int, size: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    left = rng.random(filters) < 0.8
    there = (rng.random((filters, positions)) < 0.7) & left[:, None]
    values = rng.random(there.shape)
    shared = Sharing(size, left, there)
    mean, lower = shared.mean(values), shared.lower(shared.spread(shared.mean(values)))
    units = []
    for i, rows in enumerate(blocks(np.flatnonzero(left).tolist(), size)):
        for p in range(positions):
            mine = [r for r in rows if there[r, p]]
            if mine:
                own = mean[i, p] if size > 1 else mean[mine[0], p]
                assert own == pytest.approx(np.mean(values[mine, p]))
                units.append((float(own), mine, p))
    below = 0
    for _, rows, p in sorted(units, key=lambda u: u[0]):
        assert (lower[rows, p] == below).all()
        below += len(rows)


@given(NAMES, st.integers(0, 99), SIZES, st.floats(0.2, 0.9), st.sampled_from([1, 0.4]))
def test_a_threshold_is_compared_with_the_mean_of_a_group(
    name: str, seed: int, size: int, threshold: float, floor: float
) -> None:
    it = seen(name)
    by = scores_of(it, seed, 50)
    plan = plan_stripes(
        it.anatomy, threshold=threshold, by=by, rank="global", floor=floor, stripe_group=size
    )
    wanted = {}
    for layer in it.layers.free:
        values = by.values[layer.name].reshape(layer.filters, -1)
        mask = np.zeros(values.shape, dtype=np.bool_)
        units = [
            (float(np.mean(values[b, p])), b, p)
            for b in blocks(list(range(layer.filters)), size) for p in range(layer.positions)
        ]  # fmt: skip
        least = max(1, math.ceil(floor * layer.size) if floor < 1 else floor)
        for mean, rows, position in sorted(units, key=lambda u: -u[0]):
            if mean > threshold or mask.sum() < least:
                mask[rows, position] = True
        wanted[layer.name] = mask
    assert plan.cut() == followed(it, wanted).cut()
    assert plan.made_by["stripe_group"] == size


@given(NAMES, st.integers(0, 99), SIZES, st.sampled_from([3, 10**6]),
       st.sampled_from(["macs", "pieces"]))  # fmt: skip
def test_a_budget_takes_whole_groups_and_none_without_need(
    name: str, seed: int, size: int, levels: int, target: str
) -> None:
    it = seen(name)
    by = scores_of(it, seed, levels)
    plan = plan_stripes(it.anatomy, f"{target}=70%", by=by, rank="global", stripe_group=size)
    kept, made = masks_of(it, plan), plan.made_by
    assert amount(it, plan, target) == made["reached"] <= made["limit"]
    frame, went = Frame(it.anatomy, it.layers), []
    for layer in it.layers.free:
        mask, values = kept[layer.name], by.values[layer.name].reshape(layer.filters, -1)
        assert even(mask, size)
        went += [
            (float(np.mean(values[b, p])), layer.name, b, p)
            for b in blocks(list(range(layer.filters)), size) for p in range(layer.positions)
            if not mask[b[0], p]
        ]  # fmt: skip
    assert went
    best = max(w[0] for w in went)
    _, layer, rows, position = next(w for w in went if w[0] == best)
    kept[layer][rows, position] = True
    assert frame.amount(kept, target) > made["limit"]


@given(st.integers(0, 99), SIZES)
def test_the_same_share_of_each_layer_goes_by_groups(seed: int, size: int) -> None:
    it = seen("plain")
    by = scores_of(it, seed)
    plan = plan_stripes(it.anatomy, "pieces=60%", by=by, rank="per_layer", stripe_group=size)
    for layer in it.layers.free:
        mask = masks_of(it, plan)[layer.name]
        assert even(mask, size)
        coarse = min(size, layer.filters) / layer.size
        assert abs(mask.mean() - 0.6) <= coarse + min(size, 6) / 54  # a step of either layer


def test_rows_of_a_short_last_group_are_not_at_a_disadvantage() -> None:
    it = seen("plain")  # 6 filters, and 4
    by = Scores({x.name: np.ones(x.size) for x in it.layers.free}, "same")
    by.values[it.layers.free[0].name][-9:] = 1.1
    plan = plan_stripes(it.anatomy, threshold=1.05, by=by, rank="global", stripe_group=5)
    assert [m.sum() for m in masks_of(it, plan).values()] == [9, 4]
    kept = masks_of(it, plan)[it.layers.free[0].name]
    assert kept[5].all()


@pytest.mark.parametrize("name", ["plain", "residual", "resnet20"])
def test_one_filter_is_a_group_of_its_own(name: str) -> None:
    it = seen(name)
    assert plan_stripes(it.anatomy, "macs=50%", stripe_group=1) == plan_stripes(
        it.anatomy, "macs=50%"
    )


@given(st.integers(0, 99), SIZES, st.sampled_from(["plain", "residual", "resnet20"]))
@settings(max_examples=20)
def test_groups_are_of_the_filters_that_an_earlier_plan_has_left(
    seed: int, size: int, name: str
) -> None:
    it = seen(name)
    earlier = tonsor.plan(it.anatomy, "pieces=70%", by="random", seed=seed)
    plan = plan_stripes(it.anatomy, "macs=40%", after=earlier, stripe_group=size)
    cut, uneven = plan.cut(), 0
    for layer in it.layers.free:
        if layer.weight in cut.fibres:
            kept = cut.keep.get(layer.weight, (None,))[0]
            mask = cut.fibres[layer.weight].mask
            assert even(mask[list(kept)] if kept is not None else mask, size)
            uneven += not even(mask, size)
    assert uneven or name != "resnet20"  # so the original's own groups are others


@given(st.integers(0, 99), SIZES)
def test_what_went_one_by_one_stays_gone(seed: int, size: int) -> None:
    it = seen("grouped")
    earlier = plan_stripes(it.anatomy, "pieces=75%", by="random", seed=seed)
    plan = plan_stripes(it.anatomy, "pieces=40%", after=earlier, stripe_group=size)
    before, now = masks_of(it, earlier), masks_of(it, plan)
    there = Frame(it.anatomy, it.layers, earlier).start
    for layer in it.layers.free:
        name, keep = layer.name, plan.cut().keep.get(layer.weight, (None,))[0]
        rows = earlier.cut().keep.get(layer.weight, (None,))[0]
        left = list(range(layer.filters)) if rows is None else list(rows)
        assert not (now[name] & ~before[name]).any()
        alive = set(left if keep is None else keep)
        for block in blocks(left, size):
            shared = [r for r in block if r in alive]
            there_now = now[name][shared].any(axis=0)
            assert np.array_equal(now[name][shared], there[name][shared] & there_now)
    assert plan.made_by["reached"] <= plan.made_by["limit"]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_slim_model_is_the_masked_one_and_its_layers_share(size: int) -> None:
    it = seen("resnet20")
    slim, report = tonsor.prune_stripes(it.model, it.x, budget="macs=50%", stripe_group=size)
    assert not report.plan.drops
    wanted = computed(zeroed(report.plan, it.model), it.x)
    assert np.allclose(computed(slim, it.x), wanted, rtol=1e-9, atol=1e-9)
    striped: Any
    for _, striped in slim.named_modules():
        if type(striped).__name__ == "StripeConv2d":
            kept = striped.kept.numpy().reshape(len(striped.kept), -1)
            assert shared_by(kept) % size == 0 or len(kept) <= size


def test_what_is_out_of_reach_says_that_groups_stay() -> None:
    it = seen("plain")
    by = scores_of(it, 0)
    by.values[it.layers.free[0].name][-1] = 99.0
    with pytest.raises(BudgetError, match=r"stripe of each layer must stay in all 4 filters") as no:
        plan_stripes(it.anatomy, "pieces=1%", by=by, stripe_group=4)
    assert no.value.minimum == 2 + 4  # the last two of six filters, and all of the other four
    assert "smaller stripe_group" in str(no.value)


@pytest.mark.parametrize("size", [0, -8, 2.0, True, "8", None])
def test_what_is_no_number_of_filters_is_refused(size: Any) -> None:
    it = seen("plain")
    words = said(SelectionError, lambda: plan_stripes(it.anatomy, "macs=50%", stripe_group=size))
    assert words.startswith("stripe_group is how many filters share their stripes, at least 1, got")


def test_columns_have_no_groups() -> None:
    it, option = seen("plain"), {"stripe_group": 2}
    with pytest.raises(TypeError):
        plan_columns(it.anatomy, "macs=50%", **option)  # pyright: ignore[reportArgumentType]
