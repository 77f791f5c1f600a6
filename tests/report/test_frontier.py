"""A frontier joins the models of a method by what they lose, and says how sure each is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.report.svg import SPACE, height, shapes, texts
from tonsor.report.canvas import COLOURS, NEUTRAL
from tonsor.report.frontier import Tried, frontier, frontiers

Points = list[tuple[float, float]]
SAID = ["batch 64", "one thread"]
# More is gone at each step, but the third is slower than the second.
BACK = [Tried(300, 0.1, 0.6), Tried(100, 0.0, 0.9), Tried(200, 0.2, 0.7)]


def drawn(svg: str, colour: str) -> list[Points]:
    """The lines of a colour; a bar that is not drawn is an empty path."""
    return [s for s in shapes(svg, colour, "stroke") if s]


def width(points: Points) -> float:
    return max(x for x, _ in points) - min(x for x, _ in points)


def arms(svg: str, colour: str) -> tuple[list[float], list[float]]:
    """The heights of upright bars and the widths of level ones, in the order of the points."""
    bars = [s for s in drawn(svg, colour) if len(s) == 2]
    return [height(b) for b in bars if width(b) == 0], [width(b) for b in bars if height(b) == 0]


def lines(svg: str, colour: str, count: int) -> list[Points]:
    return [s for s in drawn(svg, colour) if len(s) == count]


def test_a_figure_is_whole_and_the_same_to_the_byte() -> None:
    def draw() -> str:
        return frontier({"l1": BACK}, baseline=("whole", 0.93), conditions=SAID)

    svg = draw()
    assert svg == draw()
    ET.fromstring(svg)
    for foreign in ("<image", "data:", "<script", "<metadata"):
        assert foreign not in svg
    said = {"l1", "whole", "batch 64; one thread", "latency reduction, %", "accuracy, %"}
    assert said <= set(texts(svg))


def test_a_line_follows_what_is_removed_and_not_what_is_gained() -> None:
    svg = frontier({"l1": BACK}, conditions=SAID)
    (line,) = lines(svg, COLOURS[0], 3)
    (ax, ay), (bx, by), (cx, cy) = line
    assert ax < cx < bx
    assert (cx - ax) / (bx - ax) == pytest.approx(0.5, abs=1e-4)
    assert (by - ay) / (cy - ay) == pytest.approx(2 / 3, abs=1e-4)


def test_a_star_stands_where_the_least_is_removed() -> None:
    svg = frontier({"l1": BACK}, conditions=SAID)
    (line,) = lines(svg, COLOURS[0], 3)
    marks = [
        (float(use.get("x", "")), float(use.get("y", "")))
        for use in ET.fromstring(svg).iter(f"{SPACE}use")
        if f"fill: {COLOURS[0]}; stroke: #ffffff" in use.get("style", "")
    ]
    assert marks == [pytest.approx(line[0])]


far = st.floats(0.01, 0.5)
bars = st.tuples(st.one_of(st.none(), far), st.one_of(st.none(), st.tuples(far, far)))


@settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.generate])  # slow to shrink
@given(st.lists(bars, min_size=2, max_size=5))
def test_a_bar_for_each_error_that_is_known(
    given: Sequence[tuple[float | None, tuple[float, float] | None]],
) -> None:
    tried = [
        Tried(i, i / 10, i / 10, error, arms and (i / 10 - arms[0], i / 10 + arms[1]))
        for i, (error, arms) in enumerate(given)
    ]
    svg = frontier({"x": tried}, conditions=SAID)
    line = next(s for s in drawn(svg, COLOURS[0]) if width(s) and height(s))
    step = 0.1 * (len(tried) - 1)
    upright, level = arms(svg, COLOURS[0])
    wanted = [2 * t.error for t in tried if t.error is not None]
    spans = [t.between[1] - t.between[0] for t in tried if t.between is not None]
    assert [step * h / height(line) for h in upright] == pytest.approx(wanted, abs=1e-3)
    assert [step * w / width(line) for w in level] == pytest.approx(spans, abs=1e-3)


def test_the_baseline_is_where_it_was_measured() -> None:
    svg = frontier({"l1": BACK}, baseline=("whole", 0.75), conditions=SAID)
    (line,) = lines(svg, COLOURS[0], 3)
    (level,) = [s for s in shapes(svg, NEUTRAL, "stroke") if len(s) == 2 and width(s) > 100]
    ys = [y for _, y in line]
    assert (level[0][1] - min(ys)) / height(line) == pytest.approx(0.5, abs=1e-4)


def test_many_methods_can_be_told_apart() -> None:
    names = [f"method {i}" for i in range(8)]
    svg = frontier(dict.fromkeys(names, BACK), conditions=SAID)
    assert set(names) <= set(texts(svg))
    styles = [
        path.get("style", "")
        for path in ET.fromstring(svg).iter(f"{SPACE}path")
        if path.get("clip-path") and path.get("d", "").count("L") == 2
    ]
    assert len([s for s in styles if "stroke: #" in s]) == len(set(styles)) == 8


def test_the_axes_can_be_anything() -> None:
    svg = frontier(
        {"l1": [Tried(1, 5.0, 2.0), Tried(2, 6.0, 3.0)]},
        conditions=["a", "b " * 200], x="latency, ms", y="loss", scale=(1, 1),
    )  # fmt: skip
    said = texts(svg)
    assert {"latency, ms", "loss", "5.0", "6.0"} <= set(said)
    assert len([t for t in said if "b b b" in t]) > 1  # long conditions take more than one line


ODD = r"a$\frac$ b"  # as mathematics, this is an error


@pytest.mark.parametrize(
    "draw",
    [
        lambda: frontier({ODD: BACK}, conditions=SAID),
        lambda: frontier({"x": BACK}, conditions=[ODD]),
        lambda: frontier({"x": BACK}, conditions=SAID, baseline=(ODD, 0.5)),
    ],
    ids=["method", "conditions", "baseline"],
)
def test_a_name_is_not_set_as_mathematics(draw: Callable[[], str]) -> None:
    assert any(ODD in text for text in texts(draw()))


def one(
    x: float, error: float | None = None, between: tuple[float, float] | None = None
) -> Callable[[], str]:
    return lambda: frontier({"x": [Tried(1, x, 1, error, between)]}, conditions=SAID)


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "no method": (lambda: frontier({}, conditions=SAID), "needs the points of at least one method"),
    "no conditions": (lambda: frontier({"x": BACK}, conditions=[]), "needs the conditions too"),
    "no point": (lambda: frontier({"x": []}, conditions=SAID), "'x' has no point to draw"),
    "nan": (one(math.nan), "not made of finite numbers"),
    "error": (one(1, math.inf), "not made of finite numbers"),
    "end": (one(1, None, (0, math.nan)), "not made of finite numbers"),
    "below": (one(1, -0.1), "an error below 0"),
    "low": (one(1, None, (1.5, 2)), "outside its own interval"),
    "high": (one(1, None, (0, 0.5)), "outside its own interval"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_drawn_is_refused(case: str) -> None:
    draw, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        draw()


def test_panels_show_the_same_models_over_several_costs() -> None:
    other = [Tried(t.removed, 3 * t.x + 1, t.y) for t in BACK]
    svg = frontiers(
        {"parameters": {"l1": BACK}, "MACs": {"l1": other}}, conditions=SAID,
        baseline=("whole", 0.95),
    )  # fmt: skip
    first, second = lines(svg, COLOURS[0], 3)
    assert max(x for x, _ in first) < min(x for x, _ in second)
    for (ax, ay), (bx, by), (cx, cy) in (first, second):
        assert (cx - ax) / (bx - ax) == pytest.approx(0.5, abs=1e-4)
        assert ay < by < cy  # downwards
    said = texts(svg)
    assert {"parameters", "MACs"} <= set(said)
    assert said.count("l1") == said.count("whole") == said.count("accuracy, %") == 1
