"""Figures of blocks show the scores they were given, who may go and who goes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from itertools import combinations
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.report.svg import SPACE, height, shapes, texts
from tonsor.report import importance as module
from tonsor.report.canvas import COLOURS, INK, NEUTRAL, PALE
from tonsor.report.importance import MOVABLE, REMOVED, block_accuracy, importance

BLOCKS = ["a", "b", "c", "d"]
SCORES = {"norm": {"a": 4.0, "b": 1.0, "c": 2.0, "d": 3.0}, "gain": {"a": 0.1, "c": -0.2, "d": 0.1}}
CURVES = {"imprint": {"a": 0.2, "b": 0.5, "d": 0.8}}
DEEP = [f"layer{stage}.{i}" for stage in (1, 2, 3) for i in range(9)]  # those of ResNet-56

FIGURES: dict[str, Callable[[], str]] = {
    "importance": lambda: importance(SCORES, BLOCKS, fixed={"b"}, removed={"gain": {"c"}}),
    "accuracy": lambda: block_accuracy(
        CURVES, BLOCKS, network=0.9, errors={"imprint": {"a": 0.01}}, fixed={"b"}
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_the_same_to_the_byte(name: str) -> None:
    svg = FIGURES[name]()
    assert svg == FIGURES[name]()
    assert svg.startswith("<svg")
    ET.fromstring(svg)
    for foreign in ("<image", "data:", "<script", "<metadata"):
        assert foreign not in svg


def orders(svg: str) -> list[str]:
    """The lists of blocks of a figure."""
    said = [unescape(t).replace("\N{NO-BREAK SPACE}", " ") for t in texts(svg)]
    return [t for t in said if "<" in t or "=" in t]


# ---------------------------------------------------------------- importance


def test_a_bar_is_the_share_of_the_largest_score() -> None:
    svg = importance({"norm": SCORES["norm"]}, BLOCKS)
    bars = [height(bar) for bar in shapes(svg, MOVABLE)]
    assert [b / bars[0] for b in bars] == pytest.approx([1, 0.25, 0.5, 0.75], abs=1e-4)
    assert orders(svg) == ["2 < 3 < 4 < 1"]
    assert {"norm", "importance / largest", "block, from 1 (a) to 4 (d)"} <= set(texts(svg))
    assert not {"may go", "goes", "may not go"} & set(texts(svg))  # one colour needs no key


def test_those_that_stay_and_those_that_go_have_colours_of_their_own() -> None:
    svg = FIGURES["importance"]()
    assert [len(shapes(svg, c)) for c in (MOVABLE, REMOVED, NEUTRAL)] == [5, 1, 1]
    assert len(shapes(svg, PALE)) == 2  # where the one that may not go stands, in both panels
    assert orders(svg) == ["3 < 4 < 1", "3 < 1 = 4"]  # ties are not told apart
    assert {"may go", "goes", "may not go"} <= set(texts(svg))


def test_a_score_below_zero_hangs_from_the_line() -> None:
    svg = FIGURES["importance"]()
    (gone,) = shapes(svg, REMOVED)
    others = shapes(svg, MOVABLE)[3:]
    floor = max(y for bar in others for _, y in bar)
    assert min(y for _, y in gone) == pytest.approx(floor)
    assert height(gone) == pytest.approx(2 * height(others[0]), rel=1e-4)
    whole = shapes(svg, MOVABLE)[0]  # of the other panel: both have the largest there is
    assert height(gone) == pytest.approx(height(whole), rel=1e-4)


def test_blocks_are_numbered_as_the_paper_does_on_demand() -> None:
    svg = importance({"norm": SCORES["norm"]}, BLOCKS, first=0)
    assert orders(svg) == ["1 < 2 < 3 < 0"]
    assert "block, from 0 (a) to 3 (d)" in texts(svg)


values = st.floats(-1e300, 1e300, allow_subnormal=True)


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])  # slow to shrink
@given(st.lists(st.one_of(st.none(), values, st.just(5e-324)), min_size=1, max_size=40))
def test_any_finite_scores_can_be_drawn(scores: list[float | None]) -> None:
    blocks = [f"block{i}" for i in range(len(scores))]
    judged = {b: s for b, s in zip(blocks, scores, strict=True) if s is not None}
    svg = importance({"x": judged}, blocks, first=0)
    ET.fromstring(svg)
    assert len(shapes(svg, MOVABLE)) == len(judged)
    listed = re.findall(r"\d+", " ".join(orders(svg)))
    wanted = [str(i) for _, i in sorted((s, i) for i, s in enumerate(scores) if s is not None)]
    if len(wanted) > 1:
        assert listed == wanted
    assert ("none is judged" in texts(svg)) == (not judged)


# ---------------------------------------------------------------- nothing lies over anything


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are drawn; they are not saved, for laying them out once is enough."""
    found: list[Any] = []
    original = module.figure

    @contextmanager
    def watched(width: float, height: float) -> Iterator[tuple[Any, Any]]:
        with original(width, height) as (whole, _):
            found.append(whole)
            yield whole, str

    monkeypatch.setattr(module, "figure", watched)
    return found


def clashes(whole: Any) -> list[tuple[str, str]]:
    """The texts that lie over each other, or over the edge of the figure."""
    from matplotlib.text import Text

    whole.draw_without_rendering()
    hidden = [  # a tick beyond the end of its axis is there, and not drawn
        tick.label1
        for axes in whole.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    ]
    shown = [
        (t.get_text(), t.get_window_extent())
        for t in whole.findobj(Text)
        if t.get_visible() and t.get_text() and t not in hidden
    ]
    frame = whole.bbox
    outside = [
        (text, "the edge")
        for text, box in shown
        if box.x0 < 0 or box.y0 < 0 or box.x1 > frame.x1 or box.y1 > frame.y1
    ]
    over = [(a, b) for (a, box), (b, other) in combinations(shown, 2) if box.overlaps(other)]
    return outside + over


@pytest.mark.parametrize(
    ("count", "columns"), [(2, 1), (2, 3), (16, 2), (27, 1), (27, 2), (27, 3), (108, 2)]
)
def test_no_label_lies_over_another(seen: list[Any], count: int, columns: int) -> None:
    blocks = [f"layers.{i}" for i in range(count)] if count != len(DEEP) else DEEP
    scores = {
        f"criterion {n}": {b: (-1) ** n * ((i + n) * 7919 % 101) for i, b in enumerate(blocks)}
        for n in range(6)
    }
    gone = {name: set(blocks[4:6]) for name in scores}
    importance(scores, blocks, fixed=set(blocks[-1:]), removed=gone, columns=columns)
    (whole,) = seen
    assert len(whole.axes) == 6
    assert not clashes(whole)


# ---------------------------------------------------------------- accuracy after each block


def test_a_curve_goes_through_what_was_measured() -> None:
    svg = block_accuracy(CURVES, BLOCKS)
    (line,) = shapes(svg, COLOURS[0], "stroke")
    (ax, ay), (bx, by), (dx, dy) = line
    assert (bx - ax) / (dx - ax) == pytest.approx(1 / 3, abs=1e-4)  # c is left out, not closed up
    assert (ay - by) / (ay - dy) == pytest.approx(0.5, abs=1e-4)
    assert {"imprint", "accuracy, %", "block, from 1 (a) to 4 (d)"} <= set(texts(svg))
    assert "the network" not in texts(svg)


def test_the_network_itself_is_the_last_point_and_errors_are_bars() -> None:
    svg = FIGURES["accuracy"]()
    assert "the network" in texts(svg)
    *bars, line = shapes(svg, COLOURS[0], "stroke")
    unit = height(line) / 60  # a point in a hundred
    assert [height(bar) / unit for bar in bars if bar] == pytest.approx([2], abs=1e-3)
    assert len(shapes(svg, PALE)) == 1
    (level,) = [s for s in shapes(svg, NEUTRAL, "stroke") if len(s) == 2 and height(s) == 0]
    top = min(y for _, y in line)
    assert (top - level[0][1]) / unit == pytest.approx(10, abs=1e-3)  # 90 % is 10 above 80 %
    (star, _) = (  # and one in the legend
        (float(use.get("x", "")), float(use.get("y", "")))
        for use in ET.fromstring(svg).iter(f"{SPACE}use")
        if f"fill: {INK}" in use.get("style", "")
    )
    step = (line[-1][0] - line[0][0]) / 3
    assert star == pytest.approx((line[-1][0] + step, level[0][1]), abs=1e-3)


# ---------------------------------------------------------------- what is refused

ODD = r"a$\frac$ b"  # as mathematics, this is an error


@pytest.mark.parametrize(
    "draw",
    [
        lambda: importance({ODD: {"a": 1}}, ["a"]),
        lambda: importance({"x": {ODD: 1}}, [ODD]),
        lambda: block_accuracy({ODD: {"a": 1}}, ["a"]),
    ],
    ids=["criterion", "block", "curve"],
)
def test_a_name_is_not_set_as_mathematics(draw: Callable[[], str]) -> None:
    assert any(ODD in text for text in texts(draw()))


N = {"n": {"a": 1.0}}
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "no criterion": (lambda: importance({}, ["a"]), "nothing to draw"),
    "no block": (lambda: importance(N, []), "nothing to draw"),
    "block": (lambda: importance(N, ["b"]), "no block is called 'a'; there are b"),
    "fixed": (lambda: importance(N, ["a"], fixed={"c"}), "no block is called 'c'"),
    "criterion": (
        lambda: importance(N, ["a"], removed={"m": ["a"]}), "no criterion is called 'm'"
    ),
    "gone": (lambda: importance(N, ["a"], removed={"n": ["c"]}), "no block is called 'c'"),
    "both": (
        lambda: importance(N, ["a"], fixed={"a"}, removed={"n": ["a"]}),
        "'a' may not go, and 'n' is said to remove it",
    ),
    "nan": (
        lambda: importance({"n": {"a": math.nan}}, ["a"]), "'n' has no finite number for block 'a'"
    ),
    "columns": (lambda: importance(N, ["a"], columns=0), "at least one column, got 0"),
    "no curve": (lambda: block_accuracy({}, ["a"]), "nothing to draw"),
    "curve": (lambda: block_accuracy(N, ["a"], errors={"m": {}}), "no curve is called 'm'"),
    "error of": (lambda: block_accuracy(N, ["a"], errors={"n": {"c": 1}}), "no block is called"),
    "error": (lambda: block_accuracy(N, ["a"], errors={"n": {"a": -1}}), "error of 'n' is no"),
    "inf": (lambda: block_accuracy({"n": {"a": math.inf}}, ["a"]), "no finite number"),
    "network": (lambda: block_accuracy(N, ["a"], network=math.nan), "network is no finite number"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_drawn_is_refused(case: str) -> None:
    draw, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        draw()
