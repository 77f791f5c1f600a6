"""How important each block of a model is by several criteria, and what is known after each."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, PALE, canvas, cycle, figure, literal

MOVABLE, REMOVED = COLOURS[0], COLOURS[1]
_PER_INCH = 16  # letters of the list of blocks that fit on an inch
_TICKS = 30  # at most so many blocks are numbered below a panel
_MARKERS = "osD^vP"


def importance(
    scores: Mapping[str, Mapping[str, float]],
    blocks: Sequence[str],
    *,
    fixed: Collection[str] = (),
    removed: Mapping[str, Collection[str]] | None = None,
    columns: int = 2,
    first: int = 1,
    y: str = "importance / largest",
) -> str:
    """Draw the importance of each block in a panel for each criterion.

    `scores` maps a criterion to the scores of blocks, and `blocks` names all of them in the order
    in which they run; one without a score has no bar. Each panel is divided by its largest
    absolute value, and lists the blocks that may go, the least important first. Those in `fixed`
    may not go, and are grey; `removed` says which blocks go by which criterion.

    Blocks are numbered from `first`; the figures of LayerPrune's paper number them from 0.
    """
    removed = removed or {}
    _check(scores, blocks, fixed, columns)
    _check_known("criterion", removed, scores)
    for by, gone in removed.items():
        _check_known("block", gone, blocks)
        torn = next((b for b in gone if b in fixed), None)
        if torn is not None:
            message = f"block '{torn}' may not go, and '{by}' is said to remove it"
            raise ValueError(message)
    columns = min(columns, len(scores))
    rows = math.ceil(len(scores) / columns)
    wide = _wide(len(blocks))
    shares = {by: _shares(values) for by, values in scores.items()}
    lowest = min((s for found in shares.values() for s in found.values()), default=0.0)
    orders = {
        by: _order(values, blocks, fixed, first, int(_PER_INCH * (wide - 0.5)))
        for by, values in scores.items()
    }
    lines = max(len(order) for order in orders.values())
    with figure(wide * columns, 0.7 + (1.9 + 0.13 * lines) * rows) as (whole, save):
        for place, by in enumerate(scores):
            axes = whole.add_subplot(rows, columns, place + 1)
            _bars(axes, shares[by], blocks, fixed, removed.get(by, ()))
            axes.set_ylim(1.08 * min(lowest, 0.0), 1.08)
            axes.set_title(literal(by), fontsize=9, color=INK, loc="left", pad=7 + 9.2 * lines)
            axes.annotate(
                "\n".join(orders[by]), (0, 1), (0, 4), xycoords="axes fraction",
                textcoords="offset points", va="bottom", fontsize=7, color=INK,
            )  # fmt: skip
            _number(axes, len(blocks), first)
            _tint(axes, blocks, fixed, removed.get(by, ()))
            if place % columns == 0:
                axes.set_ylabel(y, fontsize=8)
            if place >= len(scores) - columns:
                axes.set_xlabel(_numbered(blocks, first), fontsize=8)
        _key(whole, fixed=bool(fixed), removed=any(removed.values()))
        return save()


def block_accuracy(
    curves: Mapping[str, Mapping[str, float]],
    blocks: Sequence[str],
    *,
    network: float | None = None,
    errors: Mapping[str, Mapping[str, float]] | None = None,
    fixed: Collection[str] = (),
    first: int = 1,
    y: str = "accuracy, %",
) -> str:
    """Draw the accuracy that is reached after each block, such as of imprinted classes or probes.

    Accuracies are fractions. That of the network itself is the last point. A point without a
    standard error in `errors` has no bar.
    """
    errors = errors or {}
    _check(curves, blocks, fixed, 1)
    _check_known("curve", errors, curves)
    for name, found in errors.items():
        _check_known("block", found, blocks)
        if not all(0 <= error < math.inf for error in found.values()):
            message = f"a standard error of '{name}' is no number of at least 0"
            raise ValueError(message)
    if network is not None and not math.isfinite(network):
        message = f"the accuracy of the network is no finite number but {network}; leave it out"
        raise ValueError(message)
    with canvas(max(6.4, _wide(len(blocks)) + 1.0), 3.4) as (axes, save):
        _mark(axes, blocks, fixed)
        for i, (colour, (name, values)) in enumerate(zip(cycle(), curves.items(), strict=False)):
            known = [(place, block) for place, block in enumerate(blocks) if block in values]
            spread = errors.get(name)
            axes.errorbar(
                [place for place, _ in known],
                [100 * values[block] for _, block in known],
                yerr=[100 * spread.get(b, math.nan) for _, b in known] if spread else None,
                color=colour, marker=_MARKERS[i % len(_MARKERS)], markersize=4, capsize=2,
                linewidth=1.6, label=literal(name),
            )  # fmt: skip
        last = len(blocks)
        if network is not None:
            axes.axhline(100 * network, color=NEUTRAL, linewidth=1, linestyle=(0, (4, 3)))
            axes.errorbar(
                last, 100 * network, fmt="*", color=INK, markersize=10, label="the network"
            )
        _number(axes, last, first)
        axes.set_xlim(-0.6, last - 0.4 + (network is not None))
        axes.set_xlabel(_numbered(blocks, first), fontsize=8)
        axes.set_ylabel(y, fontsize=8)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0, fontsize=8)
        return save()


def _shares(values: Mapping[str, float]) -> dict[str, float]:
    largest = max((abs(v) for v in values.values()), default=0.0)
    return {block: value / largest if largest else 0.0 for block, value in values.items()}


def _order(
    values: Mapping[str, float], blocks: Sequence[str], fixed: Collection[str], first: int, fit: int
) -> list[str]:
    """Number the blocks that may go in lines, the least important first."""
    ranked = sorted((values[b], i) for i, b in enumerate(blocks) if b in values and b not in fixed)
    # A sign stays with the number before it, so that no line begins with one.
    signs = ["\N{NO-BREAK SPACE}= " if a == b else "\N{NO-BREAK SPACE}< "
             for (a, _), (b, _) in pairwise(ranked)]  # fmt: skip
    text = "".join(f"{first + i}{sign}" for (_, i), sign in zip(ranked, [*signs, ""], strict=False))
    return textwrap.wrap(text, fit) or ["none is judged"]


def _bars(
    axes: Any,
    shares: Mapping[str, float],
    blocks: Sequence[str],
    fixed: Collection[str],
    removed: Collection[str],
) -> None:
    _mark(axes, blocks, fixed)
    known = [place for place, block in enumerate(blocks) if block in shares]
    colours = [_colour(blocks[place], fixed, removed) for place in known]
    axes.bar(known, [shares[blocks[place]] for place in known], width=0.8, color=colours)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8)


def _colour(block: str, fixed: Collection[str], removed: Collection[str]) -> str:
    return NEUTRAL if block in fixed else REMOVED if block in removed else MOVABLE


def _tint(
    axes: Any, blocks: Sequence[str], fixed: Collection[str], removed: Collection[str]
) -> None:
    """Colour the numbers as the bars, for a bar may be too low to see."""
    for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True):
        colour = _colour(blocks[int(place)], fixed, removed)
        label.set_color(INK if colour == MOVABLE else colour)


def _mark(axes: Any, blocks: Sequence[str], fixed: Collection[str]) -> None:
    """Shade where a block stands that may not go, whether it has a score or not."""
    for place, block in enumerate(blocks):
        if block in fixed:
            axes.axvspan(place - 0.5, place + 0.5, color=PALE, alpha=0.6, linewidth=0)


def _number(axes: Any, count: int, first: int) -> None:
    step = -(-count // _TICKS)
    places = range(0, count, step)
    axes.set_xticks(list(places), [str(first + i) for i in places])
    axes.set_xlim(-0.6, count - 0.4)
    axes.tick_params(labelsize=7)
    axes.grid(visible=False, axis="x")


def _numbered(blocks: Sequence[str], first: int) -> str:
    last = first + len(blocks) - 1
    return f"block, from {first} ({literal(blocks[0])}) to {last} ({literal(blocks[-1])})"


def _key(whole: Any, *, fixed: bool, removed: bool) -> None:
    """Say what the colours mean, where there is more than one."""
    from matplotlib.patches import Patch

    meanings = {"may go": MOVABLE}
    meanings |= {"goes": REMOVED} if removed else {}
    meanings |= {"may not go": NEUTRAL} if fixed else {}
    if len(meanings) > 1:
        patches = [Patch(color=colour, label=label) for label, colour in meanings.items()]
        whole.legend(handles=patches, loc="outside upper right", ncols=3, fontsize=8)


def _wide(count: int) -> float:
    return min(8.0, max(3.2, 0.6 + 0.15 * count))


def _check(
    rows: Mapping[str, Mapping[str, float]],
    blocks: Sequence[str],
    fixed: Collection[str],
    columns: int,
) -> None:
    if not blocks or not rows:
        message = "there is nothing to draw: give the names of blocks and numbers for some"
        raise ValueError(message)
    if columns < 1:
        message = f"a figure has at least one column, got {columns}"
        raise ValueError(message)
    _check_known("block", fixed, blocks)
    for name, values in rows.items():
        _check_known("block", values, blocks)
        odd = next((b for b, value in values.items() if not math.isfinite(value)), None)
        if odd is not None:
            message = f"'{name}' has no finite number for block '{odd}'; leave it out instead"
            raise ValueError(message)


def _check_known(what: str, named: Iterable[str], known: Collection[str]) -> None:
    unknown = next((name for name in named if name not in known), None)
    if unknown is not None:
        message = f"no {what} is called '{unknown}'; there are {', '.join(known)}"
        raise ValueError(message)
