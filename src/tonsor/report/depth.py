"""Colours of layers by their depth, red near the input and blue near the output, and their key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_FIRST, _LAST = (0.85, 0.1, 0.1), (0.12, 0.25, 0.85)
_NAMED = 32  # more layers than this have a bar of colours in place of a legend
_ROWS = 16  # of the legend, in one column
_TICKS = 8


def depth_colours(count: int) -> list[str]:
    """Return a colour for each layer, from red to blue.

    >>> depth_colours(3)
    ['#d91a1a', '#7c2d79', '#1f40d9']
    """
    from matplotlib.colors import to_hex

    steps = np.linspace(0, 1, count) if count > 1 else np.zeros(count)
    first, last = np.array(_FIRST), np.array(_LAST)
    return [to_hex(tuple(((1 - s) * first + s * last).tolist())) for s in steps]


def depth_key(whole: Any, axes: Any, colours: Sequence[str], title: str) -> None:
    """Say beside a chart which layer has which colour: few by a legend, many by a bar."""
    count = len(colours)
    if count <= _NAMED:
        lines = [axes.plot([], [], color=c, linewidth=2.5)[0] for c in colours]
        axes.legend(
            lines, [str(i + 1) for i in range(count)], title=title, loc="upper left",
            bbox_to_anchor=(1, 1), ncols=-(-count // _ROWS), fontsize=7, title_fontsize=8,
            handlelength=1.4, labelspacing=0.3, columnspacing=1.0,
        )  # fmt: skip
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.arange(count + 1) + 0.5
    shades = ScalarMappable(norm=BoundaryNorm(edges, count), cmap=ListedColormap(list(colours)))
    ticks = sorted({1, count, *range(10, count - 4, max(10, 10 * (count // (10 * _TICKS))))})
    bar: Any = whole.colorbar(shades, ax=axes, ticks=ticks, pad=0.02, aspect=30)
    bar.solids.set_rasterized(False)  # or it would be a picture, which blurs
    bar.solids.set_edgecolor("face")
    bar.ax.invert_yaxis()
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.minorticks_off()
    bar.set_label(title, fontsize=8)
