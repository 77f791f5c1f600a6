"""The figures of a search for criteria, from what it has left in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError
from tonsor.methods.lfpc.run import SEARCH
from tonsor.plan_json import load_plan
from tonsor.plans import Plan
from tonsor.report.chosen import what_is_left
from tonsor.report.chosen_criteria import chosen_criteria
from tonsor.report.odds import odds, odds_data
from tonsor.report.raw import save_figure
from tonsor.report.search_course import read_search

_PLAN = "plan.json"
_PIECES = {"stripes": "stripes left", "columns": "columns left"}


def draw_search(
    folder: str | Path,
    anatomy: Anatomy,
    *,
    out: str | Path | None = None,
    prefix: str = "",
    conditions: Sequence[str] = (),
) -> list[Path]:
    """Draw which criterion each layer has chosen, and how the odds went; return the two figures.

    `folder` is that of `search_criteria` or of `prune_by_learned_criteria`, and `anatomy` that of
    the model before the cut. The figures are `criteria.svg` and `odds.svg`, with a `prefix` before
    their names, in `out` or else in the folder, each with its numbers beside it.
    """
    folder = Path(folder)
    where = folder if (folder / SEARCH).exists() else folder / "search"
    if not (where / SEARCH).exists() or not (where / _PLAN).exists():
        message = (
            f"'{folder}' has no {SEARCH} with a {_PLAN} beside it; give the folder of "
            "search_criteria or prune_by_learned_criteria, once the search is over"
        )
        raise PlanError(message)
    plan, course = load_plan(where / _PLAN), read_search(where / SEARCH)
    layers = what_is_left(plan, anatomy)
    told = [*conditions, _told(plan)]
    into = folder if out is None else Path(out)
    y = _PIECES.get(str(plan.made_by.get("family")), "filters left")
    made = [into / f"{prefix}criteria.svg", into / f"{prefix}odds.svg"]
    svg = chosen_criteria(layers, criteria=course.criteria, conditions=told, y=y)
    save_figure(made[0], svg, {"layers": layers, "conditions": told})
    save_figure(made[1], odds(course, conditions=told), odds_data(course) | {"conditions": told})
    return made


def _told(plan: Plan) -> str:
    made = plan.made_by
    return (
        f"{made['budget']}, reached {made['reached'] / made['whole']:.1%} of the whole, seed "
        f"{made['seed']}, {made['steps']:,} steps of the search"
    )
