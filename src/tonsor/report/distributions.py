"""How the scores of each layer are spread: a histogram and a smooth density, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tonsor.report.canvas import COLOURS, INK, figure, literal

Array = np.ndarray[Any, np.dtype[np.float64]]
_BINS = (5, 40)
_ALIKE = 1e-9  # a spread this small beside the values is rounding, not a distribution


def distributions(
    panels: Mapping[str, Sequence[float]],
    *,
    columns: int = 3,
    skewness: Mapping[str, float] | None = None,
    marked: Collection[str] = (),
    x: str = "score",
) -> str:
    """Draw the distribution of each layer in a panel of its own, of area one.

    `skewness` is written under the names of the layers it is given for. Those in `marked`, such
    as layers that are skipped, have another colour.
    """
    _check(panels, columns, [*(skewness or ()), *marked])
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with figure(0.4 + 2.2 * columns, 0.3 + 1.9 * rows) as (whole, save):
        for place, (name, values) in enumerate(panels.items()):
            axes = whole.add_subplot(rows, columns, place + 1)
            _draw(axes, np.asarray(values, np.float64), COLOURS[int(name in marked)])
            extra = f"\nskewness {skewness[name]:+.2f}" if skewness and name in skewness else ""
            axes.set_title(literal(name) + extra, fontsize=9, color=INK)
            axes.tick_params(labelsize=7)
            if place % columns == 0:
                axes.set_ylabel("density", fontsize=8)
            if place >= len(panels) - columns:
                axes.set_xlabel(x, fontsize=8)
        return save()


def density(values: ArrayLike, at: ArrayLike) -> Array:
    """Estimate a density at some points: Gaussian kernels as wide as Scott's rule says.

    Zero everywhere if all values are the same, for then there is no density.
    """
    data = np.asarray(values, np.float64)
    points = np.asarray(at, np.float64)
    width = bandwidth(data)
    if width == 0:
        return np.zeros_like(points)
    far = (points[:, None] - data) / width
    return np.exp(-(far**2) / 2).sum(axis=1) / (len(data) * width * math.sqrt(2 * math.pi))


def bandwidth(values: ArrayLike) -> float:
    """Return the standard deviation of a kernel by Scott's rule; 0 if all values are the same."""
    data = np.asarray(values, np.float64)
    if len(data) < 2 or np.ptp(data) <= _ALIKE * np.abs(data).max():
        return 0.0
    return float(data.std(ddof=1) * len(data) ** -0.2)


def _draw(axes: Any, data: Array, colour: str) -> None:
    width = bandwidth(data)
    if width == 0:
        middle = float(data.mean())
        around = 0.5 * abs(middle) or 1.0
        axes.axvline(middle, color=colour, linewidth=2)
        axes.set_xlim(middle - around, middle + around)
        axes.text(0.25, 0.5, f"all {len(data)} the same", transform=axes.transAxes, ha="center",
                  fontsize=8, color=INK)  # fmt: skip
        axes.set_yticks([])
        return
    bins = min(max(math.ceil(math.sqrt(len(data))), _BINS[0]), _BINS[1])
    axes.hist(data, bins=bins, density=True, color=colour, alpha=0.35, linewidth=0)
    at = np.linspace(data.min() - 3 * width, data.max() + 3 * width, 200)
    axes.plot(at, density(data, at), color=colour, linewidth=1.5)


def _check(panels: Mapping[str, Sequence[float]], columns: int, named: Collection[str]) -> None:
    if not panels:
        message = "there is nothing to draw: give at least one layer with its scores"
        raise ValueError(message)
    if columns < 1:
        message = f"a figure has at least one column, got {columns}"
        raise ValueError(message)
    unknown = [name for name in named if name not in panels]
    if unknown:
        message = f"no panel is called '{unknown[0]}'; there are {', '.join(panels)}"
        raise ValueError(message)
    for name, values in panels.items():
        data = np.asarray(values, np.float64)
        if data.ndim != 1 or not len(data) or not np.isfinite(data).all():
            message = f"the scores of '{name}' are no list of finite numbers"
            raise ValueError(message)
