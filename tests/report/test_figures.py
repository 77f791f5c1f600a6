"""Figures show the numbers they were given, whatever those are, and are the same to the byte."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.svg import height, shapes, texts
from tonsor.report.canvas import COLOURS, PALE
from tonsor.report.distributions import bandwidth, density, distributions
from tonsor.report.heatmap import heatmap
from tonsor.report.structure import overlap, structure

LAYERS = {f"layer{i}.conv1": 16 * (1 + i // 2) for i in range(4)}
WITH = {"layer0.conv1": 8, "layer1.conv1": 4, "layer2.conv1": 32, "layer3.conv1": 1}
WITHOUT = {"layer0.conv1": 2, "layer3.conv1": 16}
PANELS = {"2: a": [0.1, 0.2, 0.2, 0.5], "4: b": [1.0, 2.0, 9.0], "6: c": [3.0] * 8}

FIGURES: dict[str, Callable[[], str]] = {
    "distributions": lambda: distributions(
        PANELS, skewness={"4: b": -0.5, "6: c": 0.0}, marked=["4: b"], columns=2
    ),
    "bars": lambda: structure(LAYERS, {"with": WITH, "without": WITHOUT}),
    "steps": lambda: structure(LAYERS, {"with": WITH, "without": WITHOUT}, marks="steps"),
    "overlap": lambda: overlap({"a": 0.5, "b": 1.0}, chance={"a": 0.25}),
    "heatmap": lambda: heatmap(["l1", "l2"], [[1, math.nan], [-0.5, 1]]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_whole_and_the_same_to_the_byte(name: str) -> None:
    svg = FIGURES[name]()
    assert svg == FIGURES[name]()
    assert svg.startswith("<svg")
    ET.fromstring(svg)
    for foreign in ("<image", "data:", "<script", "<metadata"):
        assert foreign not in svg


# ---------------------------------------------------------------- distributions


def test_a_panel_for_each_layer_with_its_name_skewness_and_colour() -> None:
    svg = FIGURES["distributions"]()
    said = texts(svg)
    assert [t for t in said if t in PANELS or t.startswith("skewness")] == [
        "2: a", "4: b", "skewness -0.50", "6: c", "skewness +0.00"
    ]  # fmt: skip
    assert "all 8 the same" in said
    blue, orange = (len(shapes(svg, colour)) for colour in COLOURS[:2])
    assert blue == orange == 5  # one histogram each; all the same has none


def test_the_bars_of_a_histogram_are_a_density() -> None:
    values = [0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    svg = distributions({"x": values})
    bars = shapes(svg, COLOURS[0])
    heights = np.array([height(b) for b in bars])
    counts = np.histogram(values, bins=len(bars))[0]
    assert np.allclose(heights / heights.sum(), counts / counts.sum(), atol=1e-4)
    (line,) = shapes(svg, COLOURS[0], "stroke")
    floor = max(y for bar in bars for _, y in bar)
    under = np.trapezoid([floor - y for _, y in line], [x for x, _ in line])
    width = max(x for x, _ in bars[0]) - min(x for x, _ in bars[0])
    assert heights.sum() * width == pytest.approx(under, rel=0.01)  # both have area one


VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


@given(VALUES)
def test_a_density_is_the_sum_of_kernels_of_scotts_width(values: list[float]) -> None:
    n, width = len(values), bandwidth(values)
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    if max(values) - min(values) <= 1e-9 * max(map(abs, values)):
        assert width == 0
        assert not density(values, [mean]).any()
        return
    assert width == pytest.approx(spread / n ** (1 / 5), rel=1e-6)
    at = np.linspace(min(values) - 8 * width, max(values) + 8 * width, 4001)
    found = density(values, at)
    assert np.trapezoid(found, at) == pytest.approx(1, abs=1e-3)
    x = float(at[2000])
    by_hand = sum(
        math.exp(-(((x - v) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi)) for v in values
    )
    assert found[2000] == pytest.approx(by_hand / n, rel=1e-6, abs=1e-300)


@settings(max_examples=15)
@given(
    st.one_of(
        st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9),
        st.floats(-1e300, 1e300).map(lambda v: [v] * 4),
        st.floats(0.1, 1e6).map(lambda v: [v, math.nextafter(v, math.inf)]),
        st.just([0.0, 1e-310]),
        st.just([1.0] * 500 + [1e12]),
    )
)
def test_any_finite_scores_can_be_drawn(values: list[float]) -> None:
    ET.fromstring(distributions({"x": values}))


ODD = r"a$\frac$ b"  # as mathematics, this is an error
NAMED: dict[str, Callable[[], str]] = {
    "distributions": lambda: distributions({ODD: [1, 2]}),
    "structure": lambda: structure({ODD: 3}, {ODD: {}}),
    "steps": lambda: structure(
        {ODD: 3, **dict.fromkeys("abcdefghijklmnopqrstuvwxy", 3)}, {"x": {}}
    ),
    "overlap": lambda: overlap({ODD: 0.5}),
    "heatmap": lambda: heatmap([ODD], [[1]]),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_name_is_not_set_as_mathematics(name: str) -> None:
    assert any(ODD in text for text in texts(NAMED[name]()))


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "no panel": (lambda: distributions({}), "nothing to draw"),
    "no score": (lambda: distributions({"a": []}), "'a' are no list of finite numbers"),
    "nan": (lambda: distributions({"a": [1, math.nan]}), "'a' are no list of finite numbers"),
    "marked": (lambda: distributions({"a": [1]}, marked=["b"]), "no panel is called 'b'"),
    "skewness": (lambda: distributions({"a": [1]}, skewness={"b": 1}), "no panel is called 'b'"),
    "columns": (lambda: distributions({"a": [1]}, columns=0), "at least one column, got 0"),
    "no layer": (lambda: structure({}, {"a": {}}), "nothing to draw"),
    "no run": (lambda: structure({"x": 3}, {}), "nothing to draw"),
    "layer": (lambda: structure({"x": 3}, {"a": {"y": 1}}), "no layer is called 'y'; there are x"),
    "no share": (lambda: overlap({}), "nothing to draw"),
    "chance": (lambda: overlap({"x": 1}, chance={"y": 1}), "no layer is called 'y'; there are x"),
    "no name": (lambda: heatmap([], []), "no place for 0 rows"),
    "shape": (lambda: heatmap(["a"], [[1, 2]]), r"shape \(1, 2\) has no place for 1 rows and 1"),
    "low": (lambda: heatmap(["a"], [[1]], low=1), "1 must be below 1.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_drawn_is_refused(case: str) -> None:
    draw, said = REFUSED[case]
    with pytest.raises(ValueError, match=said):
        draw()


# ---------------------------------------------------------------- structure


def test_a_bar_for_each_run_and_layer_is_as_high_as_what_is_kept() -> None:
    svg = FIGURES["bars"]()
    whole = [height(s) for s in shapes(svg, PALE)]
    unit = whole[0] / LAYERS["layer0.conv1"]
    for colour, counts in zip(COLOURS, (WITH, WITHOUT), strict=False):
        found = [height(s) / unit for s in shapes(svg, colour)]
        assert found == pytest.approx([counts.get(n, size) for n, size in LAYERS.items()], abs=1e-3)
    assert [h / unit for h in whole] == pytest.approx(list(LAYERS.values()), abs=1e-3)
    assert {"before", "with", "without", *LAYERS} <= set(texts(svg))


def test_many_layers_are_lines_and_numbered() -> None:
    many = {f"layer{i}": 16 for i in range(54)}
    counts = {n: 1 + i % 16 for i, n in enumerate(many)}
    svg = structure(many, {"with": counts, "without": {}})
    assert "layer, from 1 (layer0) to 54 (layer53)" in texts(svg)
    (line,) = shapes(svg, COLOURS[0], "stroke")
    left, right = line[0][0], line[-1][0]
    floor = max(y for _, y in line)  # y grows downwards
    middles = [left + (right - left) * (i + 0.5) / 54 for i in range(54)]
    treads = [(x, y, u) for (x, y), (u, v) in pairwise(line) if abs(y - v) < 1e-6]
    levels = [next(y for x, y, u in treads if x <= m <= u) for m in middles]
    found = [1 + 15 * (floor - y) / height(line) for y in levels]
    assert found == pytest.approx(list(counts.values()), abs=1e-3)
    (flat,) = shapes(svg, COLOURS[1], "stroke")
    assert height(flat) == 0


def test_an_overlap_is_a_bar_and_chance_a_line_across_it() -> None:
    svg = overlap({"a": 0.5, "b": 1.0, "c": 0.0}, chance={"a": 0.25, "c": 0.5})
    half, whole, none = shapes(svg, COLOURS[0])
    assert height(half) == pytest.approx(height(whole) / 2, abs=1e-3)
    assert height(none) == 0
    floor = max(y for _, y in whole)
    levels = [(floor - line[0][1]) / height(whole) for line in shapes(svg, COLOURS[1], "stroke")]
    assert levels == pytest.approx([0.25, 0.5], abs=1e-4)
    assert "by chance" in texts(svg)


# ---------------------------------------------------------------- heatmap


def test_each_cell_says_its_value_and_what_is_missing_is_grey() -> None:
    svg = heatmap(["l1", "l2"], [[1, 0.25, -1], [math.nan, 7, -0.5]], columns=["x", "y", "z"])
    wanted = ["l1", "l2", "x", "y", "z", "1.00", "0.25", "-1.00", "–", "7.00", "-0.50"]  # noqa: RUF001
    assert sorted(texts(svg)) == sorted(wanted)
    assert len(shapes(svg, PALE)) == 1
    assert len(shapes(svg, "#2d004b")) == 2  # 1, and 7 which is above all colours
    assert len(shapes(svg, "#7f3b08")) == 1
