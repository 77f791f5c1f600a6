"""A figure of layer sparsity has a line for each layer of each course, as high as it says."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.svg import SPACE, height, shapes, texts
from tonsor.report.canvas import COLOURS
from tonsor.report.sparsity import Course, sparsity

RANK = Course(
    iterations=(0, 10, 20, 40), sparsity={"conv1": (0, 0, 0.25, 0.5), "conv2": (0, 0.1, 0.4, 0.75)}
)
NORM = Course(iterations=(0, 50, 100), sparsity={"conv1": (0, 0.6, 0.7), "conv2": (0, 0, 0.3)})
BOTH = {"SPP + rank": RANK, "SPP + norm": NORM}


def lines(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The lines of a layer, in the order of the courses."""
    return shapes(svg, colour, "stroke")


def test_a_figure_is_the_same_to_the_byte_and_names_everything() -> None:
    svg = sparsity(BOTH, conditions=["convnet, 4x", "costs $5"])
    assert svg == sparsity(BOTH, conditions=["convnet, 4x", "costs $5"])
    assert {*BOTH, "conv1", "conv2", "layer sparsity", "convnet, 4x; costs $5"} <= {
        t.replace(r"\$", "$") for t in texts(svg)
    }


def test_each_layer_has_a_line_of_its_colour_for_each_course() -> None:
    svg = sparsity(BOTH, conditions=["all"])
    for colour, layer in zip(COLOURS, ("conv1", "conv2"), strict=False):
        found = lines(svg, colour)
        assert len(found) == len(BOTH)
        for line, course in zip(found, BOTH.values(), strict=True):
            assert len(line) == len(course.iterations), layer
            left, right = line[0][0], line[-1][0]
            across = [(x - left) / (right - left) for x, _ in line]
            assert across == pytest.approx([i / course.iterations[-1] for i in course.iterations],
                                           abs=1e-5)  # fmt: skip


def test_both_courses_end_at_the_same_place_however_long_they_took() -> None:
    svg = sparsity(BOTH, conditions=["all"])
    ends = {line[-1][0] for colour in COLOURS[:2] for line in lines(svg, colour)}
    assert len(ends) == 1


def test_what_stands_out_of_a_course_is_its_marker_and_its_stroke() -> None:
    whole = ET.fromstring(sparsity(BOTH, conditions=["all"]))
    drawn = [p.get("style", "") for p in whole.iter(f"{SPACE}path") if p.get("clip-path")]
    ours = [s for s in drawn if COLOURS[0] in s or COLOURS[1] in s]
    dashed = ["stroke-dasharray" in s for s in ours]
    assert dashed == [False, False, True, True]
    marks = {}
    for group in whole.iter(f"{SPACE}g"):
        uses = [u for u in group.findall(f"{SPACE}use") if COLOURS[0] in u.get("style", "")]
        if uses and group.get("clip-path"):
            link = next(v for k, v in uses[0].attrib.items() if k.endswith("href"))
            marks[link] = len(uses)
    assert sorted(marks.values()) == [3, 4]  # of two shapes, one for each of so few points


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=9))
def test_lines_are_as_high_as_the_sparsity(ends: list[float]) -> None:
    layers = {f"layer{i}": (0.0, end) for i, end in enumerate(ends)}
    svg = sparsity({"one": Course(iterations=(0, 7), sparsity=layers)}, conditions=["all"])
    whole = ET.fromstring(svg)
    found = [
        (p.get("style", ""), [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", p.get("d", ""))])
        for p in whole.iter(f"{SPACE}path")
        if p.get("clip-path") and "stroke-width: 1.3" in p.get("style", "")
    ]
    assert len({style for style, _ in found}) == len(ends)  # each in a colour of its own
    heights = [height(list(zip(p[::2], p[1::2], strict=True))) for _, p in found]
    assert [h * ends[0] for h in heights] == pytest.approx(
        [heights[0] * end for end in ends], abs=1e-3
    )


@pytest.mark.parametrize(
    ("courses", "conditions", "what"),
    [
        ({}, ["all"], "a course at least"),
        (BOTH, [], "the conditions too"),
        ({str(i): RANK for i in range(5)}, ["all"], "holds 4 courses, got 5"),
        ({"a": Course(iterations=(0, 1), sparsity={})}, ["all"], "'a' has the layers"),
        (
            {"a": RANK, "b": Course(iterations=(0, 1), sparsity={"conv1": (0, 1)})}, ["all"],
            "'b' has the layers",
        ),
        ({"a": Course(iterations=(2, 1), sparsity={"c": (0, 1)})}, ["all"], "don't go up"),
        ({"a": Course(iterations=(0,), sparsity={"c": (0,)})}, ["all"], "don't go up"),
        ({"a": Course(iterations=(0, 1), sparsity={"c": (0,)})}, ["all"], "'c' has 1 values"),
        ({"a": Course(iterations=(0, 1), sparsity={"c": (0, 1.5)})}, ["all"], "from 0 to 1"),
        ({"a": Course(iterations=(0, 1), sparsity={"c": (0, float("nan"))})}, ["all"], "of 'c'"),
    ],
)  # fmt: skip
def test_what_can_not_be_drawn_is_refused(
    courses: dict[str, Course], conditions: list[str], what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        sparsity(courses, conditions=conditions)
