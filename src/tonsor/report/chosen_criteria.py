"""How much is left of each layer, in the colour of the criterion that chose what goes."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, canvas, literal
from tonsor.report.chosen import SEVERAL, Left

_HATCHES = ("", "////", "....", "xxxx")  # of as many criteria each as there are colours
_PER_INCH = 15  # letters of the conditions that fit on an inch
_TICKS = 40  # at most so many layers are numbered
_WHOLE = "nothing may go"


def chosen_criteria(
    layers: Sequence[Left],
    *,
    criteria: Sequence[str] = (),
    conditions: Sequence[str] = (),
    y: str = "filters left",
) -> str:
    """Draw a bar for each layer as high as what is left, and an outline as high as the whole.

    The colour of a bar is that of the criterion. `criteria` gives them their order, and names also
    those that no layer has chosen. Below, a line joins the layers that share a choice.
    """
    names = _criteria(layers, criteria)
    wide = min(16.0, max(6.4, 1.0 + 0.13 * len(layers)))
    told = [*conditions]
    joined = _joined(layers)
    if joined:
        told.append("a line below joins layers that go together, and share what was chosen")
    said = textwrap.fill("; ".join(told), int(_PER_INCH * wide))
    from matplotlib.patches import Patch

    with canvas(wide, 3.4 + 0.12 * len(joined) + 0.15 * said.count("\n")) as (axes, save):
        key: list[Any] = []
        for name, style in _styles(names).items():
            mine = [i for i, x in enumerate(layers) if (x.criterion or _WHOLE) == name]
            if mine or name in criteria:
                key.append(Patch(**style, linewidth=0, label=literal(name)))
                axes.bar([i + 1 for i in mine], [layers[i].left for i in mine], width=0.8, **style,
                         linewidth=0)  # fmt: skip
        whole: Any = {"facecolor": "none", "edgecolor": INK, "linewidth": 0.6}
        axes.bar(range(1, len(layers) + 1), [x.of for x in layers], width=0.8, **whole)
        key.append(Patch(**whole, label="before"))
        _join(axes, joined)
        step = -(-len(layers) // _TICKS)
        ticks = range(1, len(layers) + 1, step)
        axes.set_xticks(list(ticks), [str(i) for i in ticks])
        axes.set_xlim(0.3, len(layers) + 0.7)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("convolution")
        axes.set_ylabel(y)
        axes.legend(
            handles=key, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(key) if wide > 9 else 5,
            borderaxespad=0, fontsize=8,
        )  # fmt: skip
        if said:
            axes.figure.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


def criterion_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return a colour for each criterion, and hatches where there are more of them than colours."""
    if len(names) > len(COLOURS) * len(_HATCHES):
        message = f"a figure tells {len(COLOURS) * len(_HATCHES)} criteria apart, got {len(names)}"
        raise ValueError(message)
    return {
        name: {"facecolor": COLOURS[i % len(COLOURS)]}
        | ({"hatch": hatch, "edgecolor": "white"} if (hatch := _HATCHES[i // len(COLOURS)]) else {})
        for i, name in enumerate(names)
    }


def _criteria(layers: Sequence[Left], criteria: Sequence[str]) -> list[str]:
    """Return the names of all criteria, if everything can be drawn."""
    if not layers:
        message = "there is nothing to draw: give at least one layer"
        raise ValueError(message)
    for layer in layers:
        if not 0 <= layer.left <= layer.of or not layer.of:
            message = f"'{layer.layer}' can't have {layer.left} of {layer.of} pieces left"
            raise ValueError(message)
    there = [x.criterion for x in layers if x.criterion not in ("", SEVERAL)]
    return list(dict.fromkeys([*criteria, *there]))


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    grey = {"facecolor": NEUTRAL}
    return criterion_styles(names) | {
        SEVERAL: grey | {"hatch": "////", "edgecolor": "white"}, _WHOLE: grey
    }  # fmt: skip


def _joined(layers: Sequence[Left]) -> list[list[list[int]]]:
    """Return the numbers of layers that share a site, in as few rows as they fit."""
    by_site: dict[str, list[int]] = {}
    for number, layer in enumerate(layers, 1):
        if layer.site and layer.site != SEVERAL:
            by_site.setdefault(layer.site, []).append(number)
    rows: list[list[list[int]]] = []
    for mine in (m for m in by_site.values() if len(m) > 1):
        row = next((r for r in rows if r[-1][-1] < mine[0]), None)
        if row is None:
            rows.append([mine])
        else:
            row.append(mine)
    return rows


def _join(axes: Any, rows: Sequence[Sequence[Sequence[int]]]) -> None:
    """Draw the rows below the bars, between them and the numbers."""
    if not rows:
        return
    top = axes.get_ylim()[1]
    for height, mine in _heights(rows, top):
        axes.plot(
            mine, [height] * len(mine), color=INK, linewidth=0.8, marker="o", markersize=2.5
        )  # fmt: skip
    axes.set_ylim(-0.05 * top * (len(rows) + 0.5), top)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_yticks([t for t in axes.get_yticks() if 0 <= t <= top])


def _heights(
    rows: Sequence[Sequence[Sequence[int]]], top: float
) -> Iterator[tuple[float, Sequence[int]]]:  # fmt: skip
    for i, row in enumerate(rows):
        for mine in row:
            yield -0.05 * top * (i + 0.75), mine
