"""Which stripes are left of each layer, by their position in the kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tonsor.report.canvas import COLOURS, INK, figure, literal

_TICKS = 60  # at most so many layers are named


def remaining(
    positions: Mapping[str, Sequence[float]],
    *,
    columns: int | None = None,
    conditions: Sequence[str] = (),
) -> str:
    """Draw which share of the filters of each layer keeps its stripe at each position.

    `positions` maps layers, in their order, to a share for each position of the kernel, which are
    numbered row by row: s1 is the upper left one, and of a 3×3 kernel s5 the middle. All layers
    need as many. Above stands what is left of each layer, and on the right of each position.
    """
    layers = list(positions)
    count = _count(positions)
    width = columns if columns is not None else math.isqrt(count)
    wide = max(4.5, 1.8 + 0.17 * len(layers))
    said = "; ".join(conditions)
    with figure(wide, 2.2 + 0.2 * count + 0.2 * bool(said)) as (whole, save):
        grid = whole.add_gridspec(
            2, 2, height_ratios=(1, 0.16 * count), width_ratios=(0.15 * len(layers), 1.0)
        )
        above, map_, beside = (whole.add_subplot(grid[p]) for p in ((0, 0), (1, 0), (1, 1)))
        means = [sum(positions[n]) / count for n in layers]
        above.bar(range(len(layers)), means, width=0.8, color=COLOURS[0])
        above.set_xlim(-0.5, len(layers) - 0.5)
        above.set_ylim(0, 1)
        above.set_xticks([])
        above.set_ylabel("left of\nthe layer", fontsize=8)
        _cells(map_, positions)
        names = [f"s{i + 1}" for i in range(count)]
        map_.set_yticks(range(count), names, fontsize=8)
        _name(map_, layers)
        every = [sum(positions[n][i] for n in layers) / len(layers) for i in range(count)]
        middle = count // 2 if width * width == count and count % 2 else -1
        colours = [COLOURS[1] if i == middle else COLOURS[0] for i in range(count)]
        beside.barh(range(count), every, height=0.8, color=colours)
        beside.set_ylim(count - 0.5, -0.5)
        beside.set_xlim(0, 1)
        beside.set_yticks([])
        beside.set_xlabel("mean", fontsize=8)
        for axes in (above, beside):
            axes.tick_params(labelsize=7)
        if said:
            whole.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


def _count(positions: Mapping[str, Sequence[float]]) -> int:
    counts = {len(shares) for shares in positions.values()}
    if len(counts) != 1:
        message = "a figure of stripes needs layers of as many positions each, and at least one"
        raise ValueError(message)
    for name, shares in positions.items():
        if not all(0 <= s <= 1 for s in shares):
            message = f"the shares of '{name}' are not all between 0 and 1"
            raise ValueError(message)
    return counts.pop()


def _cells(axes: Any, positions: Mapping[str, Sequence[float]]) -> None:
    """Colour a cell for each layer and position, the darker the more is left."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    colours = colormaps["Blues"]
    for column, shares in enumerate(positions.values()):
        for row, share in enumerate(shares):
            place = (column - 0.5, row - 0.5)
            axes.add_patch(
                Rectangle(place, 1, 1, facecolor=colours(share), edgecolor="white", linewidth=0.5)
            )
    axes.set_xlim(-0.5, len(positions) - 0.5)
    axes.set_ylim(len(next(iter(positions.values()))) - 0.5, -0.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)


def _name(axes: Any, layers: Sequence[str]) -> None:
    step = -(-len(layers) // _TICKS)
    places = list(range(0, len(layers), step))
    axes.set_xticks(places, [literal(layers[i]) for i in places], rotation=90, fontsize=6)
