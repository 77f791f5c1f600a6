"""How the odds of criteria and rates went during a search, and what its draws would have cost."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from tonsor.report.canvas import COLOURS, INK, NEUTRAL, PALE, figure, literal
from tonsor.report.chosen_criteria import criterion_styles
from tonsor.report.depth import depth_colours, depth_key
from tonsor.report.search_course import SearchCourse

Shown = Literal["odds", "logits"]
_MOMENTS = 120  # about so many are drawn
_FEW = 4  # sites that are shown if none are named
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_PER_INCH = 15  # letters of the conditions that fit on an inch


def odds(
    course: SearchCourse,
    *,
    sites: Sequence[str] | None = None,
    show: Shown = "odds",
    conditions: Sequence[str] = (),
) -> str:
    """Draw the cost beside its target, the rate that is expected of each site, and some odds.

    Each of the `sites`, or of a few from the first to the last, has a panel for its criteria and
    one for its rates. The logits of criteria are drawn in place of their odds by `show="logits"`.
    """
    numbers, course = _numbers(course, sites), course.thinned(_MOMENTS)
    wide = max(8.0, 2.5 * len(numbers) + 1.2)
    said = textwrap.fill("; ".join(conditions), int(_PER_INCH * wide))
    with figure(wide, 7.0 + 0.15 * said.count("\n")) as (whole, save):
        grid = whole.add_gridspec(3, 2 * len(numbers), height_ratios=(1.25, 1, 1))
        _cost(whole.add_subplot(grid[0, : len(numbers)]), course)
        _rates(whole, whole.add_subplot(grid[0, len(numbers) :]), course)
        for place, site in enumerate(numbers):
            across = slice(2 * place, 2 * place + 2)
            above, below = (whole.add_subplot(grid[row, across]) for row in (1, 2))
            _criteria(above, course, site, show)
            _odds_of_rates(below, course, site)
            name = textwrap.fill(course.sites[site], 30, break_on_hyphens=False)
            above.set_title(f"{site + 1}: {literal(name)}", fontsize=8, color=INK)
            below.set_xlabel("step", fontsize=8)
            if not place:
                above.set_ylabel(f"{show} of criteria", fontsize=8)
                below.set_ylabel("odds of rates", fontsize=8)
            if place == len(numbers) - 1:
                _key(above, reverse=False)
                _key(below, reverse=True)  # as they are stacked
        if said:
            whole.supxlabel(literal(said), fontsize=8, color=INK, x=0.01, ha="left")
        return save()


def odds_data(course: SearchCourse, sites: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the numbers that `odds` draws, those of panels by their site."""
    numbers, course = _numbers(course, sites), course.thinned(_MOMENTS)
    return {
        "target": course.target, "tolerance": course.tolerance, "steps": course.steps,
        "drawn": course.drawn, "expected": course.expected, "criteria": course.criteria,
        "rates": course.rates,
        "expected_rates": dict(zip(course.sites, course.expected_rates.T.round(4), strict=True)),
        "odds": {
            course.sites[i]: {
                "criteria": course.criteria_odds[:, i].round(4),
                "rates": course.rates_odds[:, i].round(4),
            } for i in numbers
        },
    }  # fmt: skip


def _numbers(course: SearchCourse, sites: Sequence[str] | None) -> list[int]:
    """Return which sites have panels."""
    if sites is None:
        count = len(course.sites)
        few = min(_FEW, count)
        return sorted({round(i * (count - 1) / max(1, few - 1)) for i in range(few)})
    unknown = [name for name in sites if name not in course.sites]
    if unknown or not sites:
        what = f"no site is called '{unknown[0]}'" if unknown else "no site is named"
        message = f"{what}; there are {', '.join(course.sites)}"
        raise ValueError(message)
    return [course.sites.index(name) for name in sites]


def _cost(axes: Any, course: SearchCourse) -> None:
    drawn, expected = (np.array(v) / course.target for v in (course.drawn, course.expected))
    near = course.tolerance
    axes.axhspan(1 - near, 1 + near, color=PALE, linewidth=0, label=f"within {near:.0%}")
    axes.axhline(1, color=NEUTRAL, linewidth=1)
    axes.plot(course.steps, drawn, color=COLOURS[5], linewidth=0.8, label="of what is drawn")
    axes.plot(course.steps, expected, color=COLOURS[0], linewidth=1.6, label="expected")
    _plain(axes, course)
    axes.set_ylabel("cost / target", fontsize=8)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0, fontsize=7)


def _rates(whole: Any, axes: Any, course: SearchCourse) -> None:
    colours = depth_colours(len(course.sites))
    for colour, values in zip(colours, course.expected_rates.T, strict=True):
        axes.plot(course.steps, values, color=colour, linewidth=1)
    _plain(axes, course)
    axes.set_ylabel("expected rate", fontsize=8)
    depth_key(whole, axes, colours, "site")


def _criteria(axes: Any, course: SearchCourse, site: int, show: Shown) -> None:
    _plain(axes, course)
    if not course.criteria_learned:
        axes.text(0.5, 0.5, "not learned", transform=axes.transAxes, ha="center", fontsize=8,
                  color=INK)  # fmt: skip
        axes.set_yticks([])
        return
    values = course.criteria_odds if show == "odds" else course.criteria_logits
    for i, (name, style) in enumerate(criterion_styles(course.criteria).items()):
        axes.plot(
            course.steps, values[:, site, i], color=style["facecolor"], linewidth=1.4,
            linestyle=_DASHES[i // len(COLOURS)], label=literal(name),
        )  # fmt: skip
    if show == "odds":
        axes.set_ylim(0, 1)


def _odds_of_rates(axes: Any, course: SearchCourse, site: int) -> None:
    """Stack the odds of all rates: the darker, the more goes."""
    from matplotlib import colormaps

    count = len(course.rates)
    shades = [colormaps["Purples"](0.15 + 0.8 * i / max(1, count - 1)) for i in range(count)]
    axes.stackplot(
        course.steps, course.rates_odds[:, site].T, colors=shades, linewidth=0,
        labels=[f"{rate:.0%}" for rate in course.rates],
    )  # fmt: skip
    _plain(axes, course)
    axes.set_ylim(0, 1)
    axes.grid(visible=False)


def _plain(axes: Any, course: SearchCourse) -> None:
    axes.tick_params(labelsize=7)
    if course.steps[-1] > course.steps[0]:
        axes.set_xlim(course.steps[0], course.steps[-1])


def _key(axes: Any, *, reverse: bool) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=reverse, fontsize=7)
