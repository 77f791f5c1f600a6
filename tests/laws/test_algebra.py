"""The laws of axes, against an oracle that only knows what an axis means.

Position p of an axis survives if and only if all leaf indices it stands on do. Whatever is
said of axes, in whatever order, must hold from then on for every choice of survivors: two
axes made one have the same mask, factors multiply to the whole, a range is a slice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tonsor.axes.algebra import Node, concat_of, find, leaf_nodes, split, take, unify
from tonsor.axes.tree import Mask, count, mask, project
from tonsor.types import Axis, Concat, Leaf, concat, leaves, product

from .axes import (
    SIZES,
    Pool,
    Say,
    build,
    coordinates,
    frozen,
    partition,
    sayings,
    size_of,
    trees,
    wild_trees,
)

Keep = Mapping[str, Mask]


def survivors(draw: st.DataObject, axes: list[Axis], pinned: set[str]) -> Keep:
    """Choose which indices of each leaf survive: all of a pinned one, some of every other."""
    sizes = {leaf.name: leaf.size for axis in axes for leaf in leaves(axis)}
    keep: dict[str, Mask] = {}
    for name, size in sizes.items():
        bits = 2**size - 1 if name in pinned else draw.draw(st.integers(1, 2**size - 1))
        keep[name] = np.array([bits >> i & 1 for i in range(size)], dtype=np.bool_)
    return keep


def oracle(axis: Axis, keep: Keep) -> Mask:
    """The mask of an axis by brute force, one position at a time."""
    found = [all(keep[name][i] for name, i in position) for position in coordinates(axis)]
    return np.array(found, dtype=np.bool_)


# ---------------------------------------------------------------- masks of finished axes


@given(st.data())
def test_a_mask_says_which_positions_have_all_their_indices(data: st.DataObject) -> None:
    tree = data.draw(SIZES.flatmap(trees))
    (axis,), _ = frozen([build(tree, {})])
    keep = survivors(data, [axis], set())
    found = mask(axis, keep)
    assert found.shape == (axis.size,) == (size_of(tree),)
    assert found.tolist() == oracle(axis, keep).tolist()


@given(st.data())
def test_masks_of_products_and_concatenations(data: st.DataObject) -> None:
    pool: dict = {}
    axes, _ = frozen([build(data.draw(trees(data.draw(SIZES))), pool) for _ in range(3)])
    keep = survivors(data, axes, set())
    masks = [mask(axis, keep) for axis in axes]
    a, b, c = masks
    assert (mask(product(*axes), keep) == np.kron(a, np.kron(b, c))).all()
    assert (mask(concat(*axes), keep) == np.concatenate(masks)).all()


@given(st.data())
def test_a_count_is_the_sum_of_the_mask(data: st.DataObject) -> None:
    """It needs counts only, so it holds where no leaf meets itself in a product."""
    (axis,), _ = frozen([build(data.draw(SIZES.flatmap(trees)), {})])
    keep = survivors(data, [axis], set())
    counts = {name: int(kept.sum()) for name, kept in keep.items()}
    if not _meets_itself(axis):
        assert count(axis, counts) == mask(axis, keep).sum()


def _meets_itself(axis: Axis) -> bool:
    if isinstance(axis, Leaf):
        return False
    if isinstance(axis, Concat):
        return any(_meets_itself(part) for part in axis.segments)
    names = [{leaf.name for leaf in leaves(part)} for part in axis.factors]
    apart = sum(map(len, names)) == len(set().union(*names))
    return not apart or any(_meets_itself(part) for part in axis.factors)


@given(st.data())
def test_projecting_a_mask_gives_back_what_was_kept(data: st.DataObject) -> None:
    (axis,), _ = frozen([build(data.draw(SIZES.flatmap(trees)), {})])
    keep = survivors(data, [axis], set())
    whole = mask(axis, keep)
    found: dict[str, Mask] = {}
    for leaf, seen in project(axis, whole):
        found[leaf.name] = found.get(leaf.name, np.ones(leaf.size, np.bool_)) & seen
    if not _meets_itself(axis):  # otherwise an index may be lost through another of its leaf
        assert {n: f.tolist() for n, f in found.items()} == {n: k.tolist() for n, k in keep.items()}
    assert mask(axis, found).tolist() == whole.tolist()


# ---------------------------------------------------------------- saying things of axes


@given(st.data())
def test_nothing_ever_raises_and_sizes_never_change(data: st.DataObject) -> None:
    grown: dict = {}
    chosen = data.draw(st.lists(wild_trees(), min_size=2, max_size=4))
    pool = Pool([build(tree, grown) for tree in chosen])
    for say in data.draw(sayings(pool.sizes, wild=True)):
        pool.do(say)
    for node, size in zip(pool.nodes, pool.sizes, strict=True):
        assert find(node).size == size
    axes, _ = frozen(pool.nodes)
    for axis, size in zip(axes, pool.sizes, strict=True):
        assert axis.size == size
        assert count(axis, {}) == size  # the parts add up and multiply to it


@given(st.data())
def test_what_was_said_holds_for_every_choice_of_survivors(data: st.DataObject) -> None:
    """The law of soundness: no mask ever disagrees with anything that was said."""
    size = data.draw(SIZES)
    grown: dict = {}
    chosen = data.draw(st.lists(trees(size), min_size=2, max_size=4))
    pool = Pool([build(tree, grown) for tree in chosen])
    for say in data.draw(sayings(pool.sizes, wild=data.draw(st.booleans()))):
        pool.do(say)
    nodes = [node for _, about in pool.said for node in about]
    axes, pinned = frozen(nodes)
    keep = survivors(data, axes, pinned)
    masks = {id(n): oracle(a, keep) for n, a in zip(nodes, axes, strict=True)}
    for say, about in pool.said:
        whole, *parts = (masks[id(node)] for node in about)
        _check(say, whole, parts)


def _check(say: Say, whole: Mask, parts: list[Mask]) -> None:
    if say.what == "unify":
        expected = parts[0]
    elif say.what == "take":
        low, high = say.sizes
        whole, expected = whole[low:high], parts[0]
    elif say.what == "+":
        expected = np.concatenate(parts)
    else:
        expected = np.ones(1, np.bool_)
        for part in parts:
            expected = np.kron(expected, part)
    if whole.shape == expected.shape:
        assert whole.tolist() == expected.tolist(), say
    else:  # a contradiction in sizes: everything must be pinned
        assert say.what in ("unify", "split")
        assert whole.all(), say
        assert expected.all(), say


@given(st.data())
def test_axes_that_were_made_one_survive_together(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    grown: dict = {}
    a, b = (build(data.draw(trees(size)), grown) for _ in range(2))
    unify(a, b, str)
    (first, second), pinned = frozen([a, b])
    keep = survivors(data, [first, second], pinned)
    assert mask(first, keep).tolist() == mask(second, keep).tolist()


@given(st.data())
def test_unify_is_commutative_up_to_pins(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    chosen = [data.draw(trees(size)) for _ in range(2)]
    here, there = ({}, {})
    a, b = (build(tree, here) for tree in chosen)
    c, d = (build(tree, there) for tree in chosen)
    unify(a, b, str)
    unify(d, c, str)
    _same_up_to_pins([a, b], [c, d])


@given(st.data())
def test_unify_is_associative_up_to_pins(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    chosen = [data.draw(trees(size)) for _ in range(3)]
    here, there = ({}, {})
    a, b, c = (build(tree, here) for tree in chosen)
    d, e, f = (build(tree, there) for tree in chosen)
    unify(unify(a, b, str), c, str)
    unify(d, unify(e, f, str), str)
    _same_up_to_pins([a, b, c], [d, e, f])


@given(st.data())
def test_unify_is_idempotent_up_to_pins(data: st.DataObject) -> None:
    size = data.draw(SIZES)
    grown: dict = {}
    a, b = (build(data.draw(trees(size)), grown) for _ in range(2))
    unify(a, b, str)
    once, pinned = partition([a, b])
    unify(a, b, str)
    unify(b, a, str)
    unify(a, a, str)
    twice, pinned_again = partition([a, b])
    assert pinned_again >= pinned
    if not pinned_again:
        assert twice == once


def _same_up_to_pins(first: list[Node[str]], second: list[Node[str]]) -> None:
    one, pinned = partition(first)
    two, also_pinned = partition(second)
    if not pinned and not also_pinned:
        assert one == two


# ---------------------------------------------------------------- looking at axes


@given(st.data())
def test_split_is_a_reshape_of_the_mask(data: st.DataObject) -> None:
    tree = data.draw(SIZES.flatmap(trees))
    size = size_of(tree)
    node = build(tree, {})
    outer = data.draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    parts = split(node, [outer, size // outer], str)
    assert [part.size for part in parts] == [outer, size // outer]
    (whole, *factors), pinned = frozen([node, *parts])
    keep = survivors(data, [whole, *factors], pinned)
    grid = mask(whole, keep).reshape(outer, size // outer)
    rows, columns = (mask(factor, keep) for factor in factors)
    assert (grid == rows[:, None] & columns).all()


@given(st.data())
def test_take_is_a_slice_of_the_mask(data: st.DataObject) -> None:
    tree = data.draw(SIZES.flatmap(trees))
    node = build(tree, {})
    low, high = data.draw(st.tuples(st.integers(0, 30), st.integers(0, 30)))
    part = take(node, low, high, str)
    (whole, segment), pinned = frozen([node, part])
    keep = survivors(data, [whole, segment], pinned)
    assert mask(segment, keep).tolist() == mask(whole, keep)[low:high].tolist()


@given(st.data())
def test_pins_are_never_lost(data: st.DataObject) -> None:
    """What is pinned stays whole, whatever becomes of it later; one index always does."""
    size = data.draw(SIZES)
    grown: dict = {}
    pool = Pool([build(data.draw(trees(size)), grown) for _ in range(3)])
    pool.do(Say("pin", 0))
    for say in data.draw(sayings(pool.sizes, wild=False)):
        pool.do(say)
    assert all(leaf.reasons for leaf in leaf_nodes(pool.nodes[0]) if leaf.size > 1)


def test_an_axis_may_be_cut_and_joined_very_often() -> None:
    """However many pieces it has, an axis gets no deeper than it is meant to be."""
    node = Node(2000)
    pieces = [take(node, i, i + 1, str) for i in range(2000)]
    grown = pieces[0]
    for piece in pieces[1:]:
        grown = concat_of([grown, piece])
    unify(node, grown, str)
    (whole, again), _ = frozen([node, grown])
    assert isinstance(whole, Concat)
    assert len(whole.segments) == 2000
    assert again == whole
