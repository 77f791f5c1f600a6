"""Charts as SVG text, the same to the byte for the same data.

Each takes plain numbers. Nothing is drawn that was not measured: a point without a standard
error has no bar, and lines only connect what was asked for in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, PALE, canvas, cycle

__all__ = ["COLOURS", "Point", "curves", "widths"]


@dataclass(frozen=True, slots=True)
class Point:
    """One model on a curve: `x` and `y` as fractions, `error` the standard error of `y`."""

    x: float
    y: float
    error: float | None = None


def curves(
    series: Mapping[str, Sequence[Point]],
    *,
    x: str,
    y: str,
    reference: tuple[str, Point] | None = None,
) -> str:
    """Draw one line for each series over fractions of cost, the dearest model on the left."""
    with canvas(6.4, 3.8) as (axes, save):
        if reference is not None:
            name, point = reference
            axes.axhline(100 * point.y, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(100 * point.x, 100 * point.y, "D", color=NEUTRAL, markersize=6, label=name)
        for colour, (name, points) in zip(cycle(), series.items(), strict=False):
            ordered = sorted(points, key=lambda p: -p.x)
            axes.errorbar(
                [100 * p.x for p in ordered],
                [100 * p.y for p in ordered],
                yerr=[100 * (p.error or 0.0) for p in ordered],
                color=colour,
                marker="o",
                markersize=5,
                capsize=2,
                linewidth=1.6,
                label=name,
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.invert_xaxis()
        axes.legend(loc="best")
        return save()


def widths(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Draw how wide each group was and is now, in the order of the model."""
    names = list(before)
    with canvas(6.4, 0.6 + 0.24 * len(names)) as (axes, save):
        rows = range(len(names))
        axes.barh(rows, [before[n] for n in names], color=PALE, height=0.7, label="before")
        axes.barh(
            rows,
            [after.get(n, before[n]) for n in names],
            color=COLOURS[0],
            height=0.7,
            label="after",
        )
        for row, name in zip(rows, names, strict=True):
            kept = after.get(name, before[name])
            label = f"{kept} of {before[name]}"
            axes.text(before[name], row, f" {label}", va="center", fontsize=8, color=INK)
        axes.set_yticks(list(rows), names, fontsize=8)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.margins(x=0.12)
        axes.set_xlabel("channels")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        return save()
