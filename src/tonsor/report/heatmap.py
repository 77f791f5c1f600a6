"""A matrix of correlations, with every value in its cell."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tonsor.report.canvas import INK, PALE, canvas, literal


def heatmap(
    names: Sequence[str],
    matrix: ArrayLike,
    *,
    columns: Sequence[str] | None = None,
    low: float = -1.0,
    high: float = 1.0,
    digits: int = 2,
) -> str:
    """Draw a matrix with names beside its rows and columns, such as of Spearman correlations.

    Colours go from orange at `low` to purple at `high`, white between, which people who see few
    colours can tell apart too. A cell without a value is grey, and has a dash. The columns are
    named as the rows if nothing else is said.
    """
    across = list(names if columns is None else columns)
    values = np.asarray(matrix, np.float64)
    if not names or values.shape != (len(names), len(across)):
        message = f"a matrix of shape {values.shape} has no place for {len(names)} rows and " + (
            f"{len(across)} columns of names"
        )
        raise ValueError(message)
    if not low < high:
        message = f"the colours go from low to high, so {low} must be below {high}"
        raise ValueError(message)
    with canvas(1.6 + 0.62 * len(across), 1.2 + 0.52 * len(names)) as (axes, save):
        from matplotlib import colormaps

        colours = colormaps["PuOr"]
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                place = min(max((value - low) / (high - low), 0.0), 1.0)
                known = math.isfinite(value)
                fill = colours(place) if known else PALE
                axes.add_patch(_cell(column, row, fill))
                ink = "white" if known and abs(place - 0.5) > 0.2 else INK
                text = f"{value:.{digits}f}" if known else "–"  # noqa: RUF001 a dash, not a minus
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
        axes.set_xlim(-0.5, len(across) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xticks(
            range(len(across)), [literal(n) for n in across], rotation=45, ha="right", fontsize=8
        )
        axes.set_yticks(range(len(names)), [literal(n) for n in names], fontsize=8)
        axes.tick_params(length=0)
        axes.grid(visible=False)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
        return save()


def _cell(column: int, row: int, fill: object) -> object:
    """One square with a white border; a vector, for a picture inside an SVG blurs."""
    from matplotlib.patches import Rectangle

    return Rectangle(
        (column - 0.5, row - 0.5), 1, 1, facecolor=fill, edgecolor="white", linewidth=1.5
    )  # type: ignore[arg-type]
