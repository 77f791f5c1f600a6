"""From words on a command line to how pieces are ranked, and which may go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tonsor.cli.choose_options import Prune
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.scores import Scores
from tonsor.errors import SelectionError

USUAL = "l2"


def scores_named(by: str | None) -> str | Scores:
    """Read scores from a file, or check the name of a criterion."""
    by = by or USUAL
    if Path(by).suffix == ".json":
        return Scores.load(by)
    find_criterion(by)
    return by


def choices(command: Prune, scores: str | Scores) -> dict[str, Any]:
    """The options of `plan` that the command line gives."""
    return {
        "by": scores, "combine": command.ranking.combine or "mean",
        "rank": command.rank or "global",
        "keep": command.keep, "round_to": command.round_to,
        "floor": 0.1 if command.floor is None else command.floor,
        "skew": command.skew, "seed": command.source.seed,
        "ratios": _ratios(command.ratio) or None,
    }  # fmt: skip


def parts_going(items: Iterable[str]) -> float | dict[str, float] | None:
    """Read which part goes: `0.75` of every layer, `conv2=0.75` of those of a name or pattern."""
    found: dict[str, float] = {}
    every: float | None = None
    for item in items:
        name, equals, text = item.rpartition("=")
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = -1.0
        twice = name in found or (not equals and every is not None)
        if not 0 <= value < 1 or bool(equals) != bool(name) or twice:
            message = (
                "--ratio takes the part that goes by spp, from 0 on and below 1: 0.75 once for "
                f"every layer, or PATTERN=PART such as conv2=0.75, got '{item}'"
            )
            raise SelectionError(message)
        if equals:
            found[name] = value
        else:
            every = value
    if not found:
        return every
    return found if every is None else {"*": every, **found}


def _ratios(items: Iterable[str]) -> dict[str, float | int]:
    """Read `NAME=0.5` and `NAME=24`; a whole number above 1 is a count."""
    found: dict[str, float | int] = {}
    for item in items:
        name, equals, text = item.rpartition("=")
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = -1.0
        if not equals or not name or not value > 0:
            message = f"--ratio takes NAME=KEPT, such as layer1.0.conv1=0.5 or =24, got '{item}'"
            raise SelectionError(message)
        found[name] = int(value) if text.isdigit() and value > 1 else value
    return found
