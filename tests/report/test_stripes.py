"""A figure of stripes has a cell for each layer and position, the darker the more is left."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from tests.report.svg import SPACE, height, shapes, texts
from tonsor.report.canvas import COLOURS
from tonsor.report.stripes import remaining

SHARES = {
    "stem": [1.0, 0.5, 0.25, 0.75],
    "block.conv1": [0.0, 0.0, 0.5, 0.5],
    "block.conv2": [0.25, 0.25, 0.25, 0.25],
}


def cells(svg: str) -> list[str]:
    """The colours of the cells, layer after layer, each from its first position on."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SPACE}path"):
        style = path.get("style", "")
        if "stroke: #ffffff" in style and path.get("clip-path"):
            found += re.findall(r"fill: (#\w+)", style)
    return found


def dark(colour: str) -> int:
    return 3 * 255 - sum(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_a_figure_is_the_same_to_the_byte_and_names_everything() -> None:
    svg = remaining(SHARES, columns=2, conditions=["resnet20", "50 % of MACs"])
    assert svg == remaining(SHARES, columns=2, conditions=["resnet20", "50 % of MACs"])
    assert {*SHARES, "s1", "s2", "s3", "s4", "mean", "resnet20; 50 % of MACs"} <= set(texts(svg))


def test_the_more_is_left_the_darker_is_the_cell() -> None:
    found = cells(remaining(SHARES, columns=2))
    shares = [s for shares in SHARES.values() for s in shares]
    assert len(found) == len(shares) == 12
    pairs = sorted(zip(shares, map(dark, found), strict=True))
    for (share, one), (other, two) in pairwise(pairs):
        assert one < two if share < other else one == two


def test_bars_show_the_means_of_layers_and_positions() -> None:
    bars = shapes(remaining(SHARES, columns=2), COLOURS[0])
    upright, level = bars[:3], bars[3:]
    full = height(upright[0]) / 0.625
    wanted = [0.625, 0.25, 0.25]
    assert [height(b) / full for b in upright] == pytest.approx(wanted, abs=1e-3)
    widths = [max(x for x, _ in b) - min(x for x, _ in b) for b in level]
    means = [sum(s[i] for s in SHARES.values()) / 3 for i in range(4)]
    assert [w / widths[0] for w in widths] == pytest.approx([m / means[0] for m in means], abs=1e-3)


def test_the_middle_of_an_odd_kernel_stands_out() -> None:
    svg = remaining({"a": [0.5] * 9, "b": [0.25] * 9})
    assert len(shapes(svg, COLOURS[1])) == 1
    assert not shapes(remaining(SHARES, columns=2), COLOURS[1])


@pytest.mark.parametrize(
    ("positions", "what"),
    [({}, "as many positions"), ({"a": [1.0], "b": [1.0, 0.0]}, "as many positions"),
     ({"a": [1.5]}, "'a' are not all between 0 and 1"), ({"a": [float("nan")]}, "'a' are not")],
)  # fmt: skip
def test_what_can_not_be_drawn_is_refused(positions: dict[str, list[float]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        remaining(positions)
