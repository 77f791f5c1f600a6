"""What is gained against what it costs: accuracy over the reduction of latency, for each method."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, cycle, figure, literal

_MARKERS = "osD^vPX"  # seven against six colours, so that many methods look different
_WIDTH = 7.6
_NEXT = 4.6  # what each further panel adds
_PER_INCH = 15  # letters of the conditions that fit on an inch


@dataclass(frozen=True, slots=True)
class Tried:
    """A model of which `removed` pieces are gone: how it does on both axes, as fractions.

    `error` is the standard error of `y`; `between` is the interval of an `x` that was measured.
    """

    removed: float
    x: float
    y: float
    error: float | None = None
    between: tuple[float, float] | None = None


def frontier(
    methods: Mapping[str, Sequence[Tried]],
    *,
    conditions: Sequence[str],
    baseline: tuple[str, float] | None = None,
    x: str = "latency reduction, %",
    y: str = "accuracy, %",
    scale: tuple[float, float] = (100.0, 100.0),
) -> str:
    """Draw a line for each method through its models, in ascending order of what is removed.

    A line goes back and forth where removing more does not gain more. It starts at a star, the
    model that loses least. The `baseline` is a name with its `y`, drawn as a dashed line. Under
    which `conditions` the numbers were taken is written below. `scale` is what `x` and `y` are
    multiplied by, for they are drawn in percent.
    """
    return frontiers({x: methods}, conditions=conditions, baseline=baseline, y=y, scale=scale)


def frontiers(
    panels: Mapping[str, Mapping[str, Sequence[Tried]]],
    *,
    conditions: Sequence[str],
    baseline: tuple[str, float] | None = None,
    y: str = "accuracy, %",
    scale: tuple[float, float] = (100.0, 100.0),
) -> str:
    """Draw the same models over several costs, a panel for each; `panels` begin with its `x`.

    The other arguments are those of `frontier`; the methods are those of the first panel.
    """
    for methods in panels.values():
        _check(methods, conditions)
    width = _WIDTH + _NEXT * (len(panels) - 1)
    said = textwrap.fill("; ".join(conditions), int(_PER_INCH * width))
    with figure(width, 4.2 + 0.15 * said.count("\n")) as (whole, save):
        for place, (x, methods) in enumerate(panels.items()):
            axes = whole.add_subplot(1, len(panels), place + 1)
            _panel(axes, methods, baseline, scale, named=place == 0)
            axes.set_xlabel(x)
            if place == 0:
                axes.set_ylabel(y)
        whole.legend(loc="outside right upper", fontsize=8)
        whole.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


def _panel(
    axes: Any,
    methods: Mapping[str, Sequence[Tried]],
    baseline: tuple[str, float] | None,
    scale: tuple[float, float],
    *,
    named: bool,
) -> None:
    """Draw one panel; the names of its lines are told once only."""
    if baseline is not None:
        name, level = baseline
        axes.axhline(
            scale[1] * level, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)),
            label=literal(name) if named else None,
        )  # fmt: skip
    for i, (colour, (name, tried)) in enumerate(zip(cycle(), methods.items(), strict=False)):
        ordered = sorted(tried, key=lambda t: t.removed)
        style = {"color": colour, "marker": _MARKERS[i % len(_MARKERS)]}
        if i >= len(COLOURS):  # this colour was there before
            style["linestyle"] = "dashed"
        _line(axes, ordered, scale, label=literal(name) if named else None, **style)
    axes.margins(0.06)


def _line(axes: Any, tried: Sequence[Tried], scale: tuple[float, float], **style: Any) -> None:
    across, up = scale
    xs, ys = [across * t.x for t in tried], [up * t.y for t in tried]
    # What has no error gets nan, for which no bar is drawn.
    errors = [math.nan if t.error is None else up * t.error for t in tried]
    ends = [(math.nan, math.nan) if t.between is None else t.between for t in tried]
    left = [across * (t.x - low) for t, (low, _) in zip(tried, ends, strict=True)]
    right = [across * (high - t.x) for t, (_, high) in zip(tried, ends, strict=True)]
    axes.errorbar(
        xs, ys,
        yerr=None if all(map(math.isnan, errors)) else errors,
        xerr=None if all(map(math.isnan, left)) else [left, right],
        markersize=4.5, capsize=2, linewidth=1.4, elinewidth=0.9, **style,
    )  # fmt: skip
    axes.plot(
        xs[:1], ys[:1], "*", color=style["color"], markersize=13, markeredgecolor="white",
        markeredgewidth=0.8, zorder=3,
    )  # fmt: skip


def _check(methods: Mapping[str, Sequence[Tried]], conditions: Sequence[str]) -> None:
    if not methods or not conditions:
        what = "the points of at least one method" if not methods else "the conditions too"
        message = f"a figure of what methods gain needs {what}"
        raise ValueError(message)
    for name, tried in methods.items():
        if not tried:
            message = f"'{name}' has no point to draw; leave it out"
            raise ValueError(message)
        for t in tried:
            low, high = t.between or (t.x, t.x)
            error = t.error or 0.0
            if not all(map(math.isfinite, (t.removed, t.x, t.y, error, low, high))):
                message = f"'{name}' has a point that is not made of finite numbers: {t}"
                raise ValueError(message)
            if not low <= t.x <= high or error < 0:
                message = f"'{name}' has a point outside its own interval, or an error below 0: {t}"
                raise ValueError(message)
