"""What all figures share: colours, style, and SVG text that is the same to the byte."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Okabe and Ito's colours, which people who see few colours can tell apart too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
NEUTRAL = "#8a8f98"
PALE = "#d9dde3"
INK = "#3a3f47"
_STYLE: Any = {
    "svg.hashsalt": "tonsor",
    "svg.fonttype": "path",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e6ea",
    "axes.axisbelow": True,
    "axes.edgecolor": NEUTRAL,
    "legend.frameon": False,
}


def cycle() -> Iterator[str]:
    """Yield the colours of the series of a figure, over and over."""
    while True:
        yield from COLOURS


def literal(name: str) -> str:
    """Have a name drawn as it is: between two dollars, text would be set as mathematics."""
    return name.replace("$", r"\$")


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield the axes of one chart, and the function that returns its SVG; sizes are in inches."""
    with figure(width, height) as (whole, save):
        yield whole.add_subplot(), save


@contextmanager
def figure(width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield a figure to put charts in, and the function that returns its SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        whole = Figure(figsize=(width, height), layout="constrained")

        def save() -> str:
            text = io.StringIO()
            whole.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            svg = text.getvalue()
            return re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.S)

        yield whole, save
