"""Ranks: which pieces are compared with which, and what that means for what goes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.laws.networks import examples
from tonsor.criteria.score import Scores
from tonsor.plans import Plan
from tonsor.select.isomorphic import likeness, share_alike
from tonsor.select.make import plan
from tonsor.select.rank import RANKS, Alive, Lane, Rank, make_lane, order_steps
from tonsor.types import Group

from .nets import anatomy_of, drawn, nets, removed, seeds, widths

ranks = st.sampled_from(RANKS)
shares = st.floats(0.35, 0.95)


def pruned(anatomy: tonsor.Anatomy, share: float, scores: Scores, rank: Rank) -> Plan:
    """Ask for a share of the pieces, which every network here can give."""
    return plan(anatomy, tonsor.Budget("pieces", kept=share), by=scores, rank=rank)


# ---------------------------------------------------------------- classes of likes


def classes(anatomy: tonsor.Anatomy) -> dict[Hashable, list[str]]:
    found = defaultdict(list)
    for group in anatomy.prunable:
        found[likeness(anatomy, [group])].append(group.name)
    return found


def test_groups_are_alike_that_lie_in_blocks_of_the_same_shape() -> None:
    found = sorted(classes(anatomy_of("resnet20")).values())
    blocks = [[f"layer{s}.{b}.conv1.weight[0]" for b in range(3)] for s in (1, 2, 3)]
    # The first block of a later stage reads from a narrower one.
    assert found == sorted(
        [["conv1.weight[0]"], blocks[0], blocks[1][:1], blocks[1][1:], blocks[2][:1], blocks[2][1:]]
    )
    assert len(classes(anatomy_of("row"))) == 1


def test_the_ends_of_a_chunk_are_alike_but_other_layers_are_not() -> None:
    assert sorted(map(len, classes(anatomy_of("halves")).values())) == [1, 2]


@examples(40)
@given(shares, seeds, st.booleans())
def test_of_one_class_the_isomorphic_rank_is_the_global_one(
    share: float, seed: int, few: bool
) -> None:
    anatomy = anatomy_of("row")
    scores = drawn(anatomy, seed, few=few)
    assert (
        pruned(anatomy, share, scores, "isomorphic").keep
        == pruned(anatomy, share, scores, "global").keep
    )


@examples(40)
@given(shares, seeds)
def test_where_no_two_are_alike_the_isomorphic_rank_takes_the_same_share_of_each(
    share: float, seed: int
) -> None:
    anatomy = anatomy_of("convnet")
    assert all(len(c) == 1 for c in classes(anatomy).values())
    scores = drawn(anatomy, seed)
    assert (
        pruned(anatomy, share, scores, "isomorphic").keep
        == pruned(anatomy, share, scores, "per_group").keep
    )


@examples(40)
@given(shares, seeds)
def test_every_class_gives_the_same_share_of_its_lowest_pieces(share: float, seed: int) -> None:
    anatomy = anatomy_of("resnet20")
    scores = drawn(anatomy, seed)
    decided = plan(
        anatomy, tonsor.Budget("pieces", kept=share), by=scores, rank="isomorphic", floor=1
    )
    gone = removed(decided)
    taken = []
    for names in classes(anatomy).values():
        rows = sorted((scores[n][i], n, i) for n in names for i in range(len(scores[n])))
        here = {(n, i) for _, n, i in rows if (n, i) in gone}
        taken.append((len(here), len(rows)))
        last = {n: int(np.argmax(scores[n])) for n in names}  # one of each group stays
        free = [(n, i) for _, n, i in rows if i != last[n]]
        assert here == set(free[: len(here)])
    # No class is a whole piece behind or ahead of where the others are, but for what must stay.
    least = max(k / n for k, n in taken)
    for names, (count, size) in zip(classes(anatomy).values(), taken, strict=True):
        assert count == size - len(names) or count / size > least - 2 / size


def test_a_class_of_ties_counts_the_pieces_of_all_its_groups() -> None:
    names = ("a", "b", "c", "d")
    groups = [Group(n, 4, "channels", (), tie=0 if n < "c" else None) for n in names]
    scores = Scores({n: np.arange(4.0) for n in names}, "test")
    bundles = [groups[:2], groups[2:3], groups[3:]]
    lanes = [make_lane(b, scores, "isomorphic", 1, 1) for b in bundles]
    lanes = share_alike(lanes, ["tied", "alone", "alone"])
    assert lanes[0].keys.tolist() == [2 / 8, 4 / 8, 6 / 8]
    assert lanes[1].keys.tolist() == [1 / 8, 3 / 8, 5 / 8]
    assert lanes[2].keys.tolist() == [2 / 8, 4 / 8, 6 / 8]
    assert order_steps(lanes).tolist() == [1, 0, 2, 1, 0, 2, 1, 0, 2]


@pytest.mark.parametrize("other", [{"size": 7}, {"unit": 2}, {"kind": "heads"}])
def test_groups_of_another_size_unit_or_kind_are_not_alike(other: dict[str, Any]) -> None:
    anatomy = anatomy_of("row")
    group = anatomy.prunable[0]
    assert likeness(anatomy, [group]) == likeness(anatomy, [replace(group, name=group.name)])
    assert likeness(anatomy, [group]) != likeness(anatomy, [replace(group, **other)])


@given(st.data(), ranks.filter(lambda r: r != "normalised"))
def test_what_is_gone_before_leaves_the_rest_of_the_order_as_it_was(
    data: st.DataObject, rank: Rank
) -> None:
    """Stop anywhere, and make lanes of what is left: they go on where the first ones were."""
    sizes = data.draw(st.lists(st.sampled_from((2, 4, 8)), min_size=1, max_size=3))
    groups = [Group(f"g{i}", size, "channels", ()) for i, size in enumerate(sizes)]
    few = st.integers(0, 3)
    values = {g.name: [data.draw(few) for _ in range(g.size)] for g in groups}
    scores = Scores({n: np.array(v, dtype=float) for n, v in values.items()}, "test")
    alike = [data.draw(st.sampled_from("xy")) for _ in groups]

    def made(alive: dict[str, Alive]) -> list[Lane]:
        lanes = [make_lane([g], scores, rank, 1, 1, alive) for g in groups]
        return share_alike(lanes, alike) if rank == "isomorphic" else lanes

    lanes = made({})
    order = order_steps(lanes)
    stop = data.draw(st.integers(0, len(order)))
    steps = np.bincount(order[:stop], minlength=len(lanes))
    alive: dict[str, Alive] = {}
    for lane, step in zip(lanes, steps, strict=True):
        (kept,) = lane.kept_indices(int(step)).values()
        alive[lane.names[0]] = np.isin(np.arange(len(lane.orders[0])), kept)
    assert order_steps(made(alive)).tolist() == order[stop:].tolist()


# ---------------------------------------------------------------- laws of all ranks


@examples(40)
@given(nets, shares, shares, st.sampled_from(("global", "per_group")), seeds)
def test_a_smaller_budget_removes_more_and_keeps_nothing_that_a_larger_one_let_go(
    net: str, one: float, other: float, rank: Rank, seed: int
) -> None:
    anatomy = anatomy_of(net)
    scores = drawn(anatomy, seed)
    less, more = sorted((one, other))
    small, large = pruned(anatomy, less, scores, rank), pruned(anatomy, more, scores, rank)
    if all(g.tie is None for g in anatomy.prunable):  # every step is one piece, so none is skipped
        assert small.made_by["reached"] == small.made_by["limit"]
        assert removed(small) >= removed(large)
    else:
        assert small.made_by["reached"] <= large.made_by["reached"]


@examples(40)
@given(st.sampled_from(("resnet20", "convnet", "row")), shares, seeds, st.booleans())
def test_the_global_rank_removes_the_lowest_scores_of_all(
    name: str, share: float, seed: int, few: bool
) -> None:
    """Brute force: sort every piece, leave the floors alone, and cut the list off."""
    anatomy = anatomy_of(name)
    scores = drawn(anatomy, seed, few=few)
    decided = pruned(anatomy, share, scores, "global")
    going = []
    for at, group in enumerate(anatomy.prunable):
        row = scores[group.name]
        order = sorted(range(group.size), key=lambda i, r=row: (r[i], i))
        free = order[: group.size - math.ceil(group.size / 10)]
        going += [(row[i], step, at, group.name, i) for step, i in enumerate(free)]
    every = sum(g.size for g in anatomy.prunable)
    number = every - decided.made_by["reached"]
    assert removed(decided) == {(n, i) for *_, n, i in sorted(going)[:number]}


@examples(40)
@given(seeds, shares)
def test_only_the_normalised_rank_does_not_see_the_scale_of_a_group(
    seed: int, share: float
) -> None:
    anatomy = anatomy_of("resnet20")
    scores = drawn(anatomy, seed)
    scaled = Scores({n: v * 2.0 ** (i - 4) for i, (n, v) in enumerate(scores.values.items())}, "x")

    def same(rank: Rank) -> bool:
        first, second = (pruned(anatomy, share, s, rank) for s in (scores, scaled))
        return first.keep == second.keep

    assert same("normalised")
    assert same("per_group")


def test_a_group_whose_mean_is_below_zero_is_ranked_the_same_way_round() -> None:
    group = Group("a", 3, "channels", ())
    lane = make_lane([group], Scores({"a": np.array([-4.0, 1, 0])}, "x"), "normalised", 1, 1)
    assert lane.orders[0].tolist() == [0, 2, 1]
    assert lane.keys[0] < 0 <= lane.keys[1]


def test_scores_far_apart_do_not_blur_each_other() -> None:
    group = Group("a", 4, "channels", ())
    row = np.array([-1e20, 1.0, 2.0, 1e20])
    assert make_lane([group], Scores({"a": row}, "x"), "global", 1, 1).keys.tolist() == [
        -1e20, 1.0, 2.0,
    ]  # fmt: skip


def test_of_equal_scores_the_lowest_index_goes_first() -> None:
    anatomy = anatomy_of("convnet")
    flat = Scores({g.name: np.ones(g.size) for g in anatomy.prunable}, "flat")
    for name, kept in plan(anatomy, "pieces=50%", by=flat).keep.items():
        size = anatomy.by_name[name].size
        assert kept == tuple(range(size - len(kept), size))


def test_a_floor_is_the_decimal_that_it_was_written_as() -> None:
    group = Group("a", 100, "channels", ())
    lane = make_lane([group], Scores({"a": np.arange(100.0)}, "x"), "global", 1, 0.07)
    assert lane.kept[0][-1] == 7  # 0.07 * 100 is a little more


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("name", ["resnet20", "halves"])
def test_the_cut_of_every_rank_is_proven(name: str, rank: Rank) -> None:
    anatomy = anatomy_of(name)
    decided = plan(anatomy, "params=60%", rank=rank, round_to=2)
    decided.apply(anatomy.model)  # the proof holds, or it would have raised
    assert decided.made_by["reached"] <= 0.6 * anatomy.cost.params()
    assert all(c % 2 == 0 for n, c in widths(anatomy, decided).items() if n in decided.keep)


@examples(40)
@given(nets, ranks, st.sampled_from((1, 2, 3)), st.floats(0.01, 0.9), seeds)
def test_no_group_is_cut_below_its_floor_or_beside_its_multiples(
    net: str, rank: Rank, round_to: int, floor: float, seed: int
) -> None:
    anatomy = anatomy_of(net)
    options: dict[str, Any] = {"by": drawn(anatomy, seed), "rank": rank, "round_to": round_to}
    least = plan(anatomy, "pieces=100%", floor=floor, **options).made_by
    share = max(0.7, least["least"] / least["whole"])
    decided = plan(anatomy, tonsor.Budget("pieces", kept=share), floor=floor, **options)
    assert decided.keep or share == 1
    for name, count in decided.counts.items():
        group = anatomy.by_name[name]
        assert count >= min(group.size, floor * group.size)
        assert count % round_to == 0
