"""What a test can read back from a figure: its text, and the shapes of one colour."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

SPACE = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """What is written in a figure; each text is drawn as outlines, with a comment before them."""
    return re.findall(r"<!-- (.*?) -->", svg, flags=re.S)


def shapes(svg: str, colour: str, what: str = "fill") -> list[list[tuple[float, float]]]:
    """The corners of each path that is filled (or stroked) with a colour; legends are left out."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SPACE}path"):
        if f"{what}: {colour}" in path.get("style", "") and path.get("clip-path"):
            numbers = re.findall(r"-?\d+(?:\.\d+)?", path.get("d", ""))
            pairs = [float(n) for n in numbers]
            found.append(list(zip(pairs[::2], pairs[1::2], strict=True)))
    return found


def height(points: list[tuple[float, float]]) -> float:
    """How high a shape is."""
    return max(y for _, y in points) - min(y for _, y in points)
