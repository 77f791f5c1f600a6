"""How the layers of a model lose their pieces while it trains, by one way of pruning or several."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tonsor.report.canvas import COLOURS, INK, figure, literal

_STYLES = (("o", "solid"), ("D", "dashed"), ("s", "dotted"), ("^", "dashdot"))
_MARKS = 16  # about so many on a line, or they would hide it
_ROWS = 16  # of the legend, in one column
_PER_INCH = 15  # letters of the conditions that fit on an inch


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One pruning: the part of each layer that is gone for good, after so many iterations.

    The last of the `iterations` is where the pruning ended.
    """

    iterations: Sequence[int]
    sparsity: Mapping[str, Sequence[float]]


def sparsity(courses: Mapping[str, Course], *, conditions: Sequence[str]) -> str:
    """Draw a line for each layer and each of the courses, which are of the same layers.

    Iterations are shown as a part of all that this course took, so that a fast one and a slow one
    can be compared. Layers have their colours, courses their marks and strokes.
    """
    layers = _layers(courses, conditions)
    colours = _colours(len(layers))
    columns = -(-(len(layers) + len(courses)) // _ROWS)
    width = 6.2 + 1.4 * columns
    said = textwrap.fill("; ".join(conditions), int(_PER_INCH * width))
    with figure(width, 4.2 + 0.15 * said.count("\n")) as (whole, save):
        axes = whole.add_subplot()
        for (marker, stroke), course in zip(_STYLES, courses.values(), strict=False):
            across = [i / course.iterations[-1] for i in course.iterations]
            for name, colour in zip(layers, colours, strict=True):
                axes.plot(
                    across, course.sparsity[name], color=colour, marker=marker, linestyle=stroke,
                    markevery=_marked(len(across)), **_LOOK,
                )  # fmt: skip
        _legend(whole, axes, dict(zip(layers, colours, strict=True)), list(courses), columns)
        axes.set_xlim(0, 1.02)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("iteration, as a part of all that the pruning took")
        axes.set_ylabel("layer sparsity")
        whole.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


_LOOK: dict[str, Any] = {
    "markersize": 4.5, "linewidth": 1.3, "markeredgecolor": "white", "markeredgewidth": 0.5
}  # fmt: skip


def _colours(count: int) -> list[str]:
    """Choose a colour for each layer; many layers go from dark to light by their depth."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    shades = colormaps["viridis"]
    return [to_hex(shades(0.93 * i / (count - 1))) for i in range(count)]


def _marked(count: int) -> list[int]:
    return sorted({*range(0, count, -(-count // _MARKS)), count - 1})


def _legend(
    whole: Any, axes: Any, layers: Mapping[str, str], courses: Sequence[str], columns: int
) -> None:
    for (marker, stroke), name in zip(_STYLES, courses, strict=False):
        axes.plot(
            [], [], color=INK, marker=marker, linestyle=stroke, label=literal(name), **_LOOK
        )  # fmt: skip
    for name, colour in layers.items():
        axes.plot([], [], color=colour, linewidth=3, label=literal(name))
    whole.legend(loc="outside right upper", fontsize=8, ncols=columns, handlelength=3)


def _layers(courses: Mapping[str, Course], conditions: Sequence[str]) -> list[str]:
    """Return the names of the layers, if all can be drawn."""
    if not courses or not conditions:
        what = "the conditions too" if courses else "a course at least"
        message = f"a figure of layer sparsity needs {what}"
        raise ValueError(message)
    if len(courses) > len(_STYLES):
        message = f"a figure of layer sparsity holds {len(_STYLES)} courses, got {len(courses)}"
        raise ValueError(message)
    layers = list(next(iter(courses.values())).sparsity)
    for name, course in courses.items():
        if not layers or list(course.sparsity) != layers:
            message = f"'{name}' has the layers {list(course.sparsity)}, the first has {layers}"
            raise ValueError(message)
        steps = list(course.iterations)
        if not steps or steps[0] < 0 or steps[-1] <= 0 or steps != sorted(steps):
            message = f"the iterations of '{name}' don't go up from 0 or more to an end: {steps}"
            raise ValueError(message)
        for layer, parts in course.sparsity.items():
            if len(parts) != len(steps):
                message = (
                    f"'{name}' has {len(steps)} iterations, but '{layer}' has {len(parts)} values"
                )
                raise ValueError(message)
            if not all(math.isfinite(p) and 0 <= p <= 1 for p in parts):
                message = f"the sparsity of '{layer}' in '{name}' is not always from 0 to 1"
                raise ValueError(message)
    return layers
