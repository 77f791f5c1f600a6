"""A sheet gives what the plain sum over axes gives, for any trees and any counts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tonsor.axes.tree import count
from tonsor.cost.sheet import Sheet
from tonsor.types import Axis, Leaf, concat, leaves, product

SIZES = dict(zip("abcdefgh", (1, 2, 3, 4, 5, 7, 11, 13), strict=True))
LEAVES = st.sampled_from([Leaf(name, size) for name, size in SIZES.items()])


def joined(parts: st.SearchStrategy[Axis]) -> st.SearchStrategy[Axis]:
    several = st.lists(parts, min_size=1, max_size=3)
    return several.map(lambda p: product(*p)) | several.map(lambda p: concat(*p))


AXES = st.recursive(LEAVES, joined, max_leaves=8)
ENTRIES = st.lists(
    st.tuples(st.sampled_from(["x", "y"]), st.integers(-2, 9), st.lists(AXES, max_size=4)),
    max_size=6,
)
COUNTS = st.fixed_dictionaries({}, optional={n: st.integers(0, s) for n, s in SIZES.items()})


@given(ENTRIES, COUNTS, COUNTS)
def test_a_sheet_adds_up_products_of_counts(entries, counts, fixed) -> None:
    wanted: dict[str, int] = {}
    for key, factor, axes in entries:
        each = math.prod(count(axis, counts | fixed) for axis in axes)
        wanted[key] = wanted.get(key, 0) + factor * each
    assert Sheet(entries, fixed).totals(counts) == wanted


def test_fixed_leaves_ignore_the_counts() -> None:
    sheet = Sheet([("all", 1, [concat(Leaf("a", 4), Leaf("b", 3))])], fixed={"a": 1})
    assert sheet.totals({"a": 2, "b": 2}) == {"all": 1 + 2}


def test_equal_trees_are_merged_wherever_they_were_built() -> None:
    def axes() -> list[Axis]:
        return [concat(Leaf("a", 4), product(Leaf("b", 3), Leaf("c", 2))), Leaf("d", 5)]

    first, second = axes(), axes()
    sheet = Sheet([("all", 1, first), ("all", 2, second[::-1]), ("all", -3, first)])
    assert len(sheet._adds) == 1
    assert sheet._sums == {"all": []}
    assert [leaf.name for axis in first for leaf in leaves(axis)] == ["a", "b", "c", "d"]
