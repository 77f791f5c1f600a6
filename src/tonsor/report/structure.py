"""What different prunings leave of each layer: how much, and how far they leave the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, PALE, canvas, cycle, literal

Marks = Literal["auto", "bars", "steps"]
_NAMED = 24  # more layers than this are numbered, and their bars become a line


def structure(
    before: Mapping[str, int],
    kept: Mapping[str, Mapping[str, int]],
    *,
    marks: Marks = "auto",
    y: str = "channels kept",
) -> str:
    """Draw how many channels each run keeps of each layer, in the order of the model.

    `kept` maps the name of a run to its counts; a layer that a run does not name is whole. Few
    layers have a bar for each run, and many a line.
    """
    if not before or not kept:
        message = "there is nothing to draw: give the sizes of layers and at least one run"
        raise ValueError(message)
    _check_names(before, chain.from_iterable(kept.values()))
    places = np.arange(len(before))
    stepped = marks == "steps" or (marks == "auto" and len(before) > _NAMED)
    with canvas(_width(len(before)), 3.8) as (axes, save):
        edges, each = np.arange(len(before) + 1) - 0.5, 0.8 / len(kept)
        if stepped:
            axes.stairs(list(before.values()), edges, color=PALE, fill=True, label="before")
        else:
            axes.bar(places, list(before.values()), width=0.92, color=PALE, label="before")
        for run, (colour, (name, counts)) in enumerate(zip(cycle(), kept.items(), strict=False)):
            heights = [counts.get(layer, size) for layer, size in before.items()]
            if stepped:
                style: Any = (0, (4, 1.5)) if run % 2 else "-"
                axes.stairs(
                    heights, edges, color=colour, linewidth=1.8, linestyle=style, baseline=None,
                    label=literal(name),
                )  # fmt: skip
            else:
                left = places - 0.4 + (run + 0.5) * each
                axes.bar(left, heights, width=each * 0.92, color=colour, label=literal(name))
        _layers(axes, list(before))
        axes.set_ylabel(y)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0)
        return save()


def overlap(
    shares: Mapping[str, float],
    *,
    chance: Mapping[str, float] | None = None,
    y: str = "channels that both keep, %",
) -> str:
    """Draw which fraction of what is kept of each layer is the same in two runs.

    `chance` is the fraction that two random choices would share, drawn as a line across the bar.
    """
    if not shares:
        message = "there is nothing to draw: give the share of at least one layer"
        raise ValueError(message)
    _check_names(shares, chance or ())
    places = np.arange(len(shares))
    with canvas(_width(len(shares)), 3.2) as (axes, save):
        axes.bar(places, [100 * s for s in shares.values()], width=0.8, color=COLOURS[0])
        if chance:
            known = [i for i, layer in enumerate(shares) if layer in chance]
            levels = [100 * chance[layer] for layer in shares if layer in chance]
            axes.hlines(levels, np.array(known) - 0.46, np.array(known) + 0.46, color=COLOURS[1],
                        linewidth=1.6, label="by chance")  # fmt: skip
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
        axes.axhline(100, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(0, 105)
        _layers(axes, list(shares))
        axes.set_ylabel(y)
        return save()


def _check_names(layers: Mapping[str, object], named: Any) -> None:
    unknown = [name for name in named if name not in layers]
    if unknown:
        message = f"no layer is called '{unknown[0]}'; there are {', '.join(layers)}"
        raise ValueError(message)


def _width(layers: int) -> float:
    return min(14.0, max(6.4, 1.0 + 0.22 * layers))


def _layers(axes: Any, names: Sequence[str]) -> None:
    """Name the layers below the chart; where they are many, number them from 1."""
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.6, len(names) - 0.4)
    shown = [literal(name) for name in names]
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), shown, rotation=60, ha="right", fontsize=8, color=INK)
        return
    step = -(-len(names) // _NAMED)
    places = range(0, len(names), step)
    axes.set_xticks(list(places), [str(i + 1) for i in places], fontsize=8, color=INK)
    axes.set_xlabel(f"layer, from 1 ({shown[0]}) to {len(names)} ({shown[-1]})")
