"""The study of learned criteria on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.errors import SelectionError
from tonsor.study.base import Base
from tonsor.study.criteria import UNIFORM
from tonsor.study.lfpc import LfpcStudy, lfpc_trial
from tonsor.study.lfpc_tell import draw, page
from tonsor.study.paired import Figure
from tonsor.study.trials import run_trials

SEARCH = {"masks": "straight", "warm": 1.0}  # found on validation images; the page says how
_VALIDATION = 2000
_PART = 10
_ALL = 10**9


def with_validation(base: Base) -> Base:
    """Keep training images to decide by: two thousand, or a tenth of them if that is fewer."""
    every = len(replace(base, images=_ALL).splits(0).train)
    return replace(base, validation=min(_VALIDATION, every // _PART))


def lfpc(
    command: Study, base: Base, seeds: tuple[int, ...], whole: Figure
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study; return the results, and the page that tells them."""
    chosen = lfpc_study(base, command.by, command.kept, seeds)
    found = run_trials(
        lfpc_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    draw(chosen, found, whole, command.out)
    return found, page(chosen, found, whole)


def lfpc_study(
    base: Base, by: tuple[str, ...], kept: tuple[float, ...], seeds: tuple[int, ...]
) -> LfpcStudy:
    """Make the study: of which criteria, at which shares of the multiply-accumulates."""
    for part in kept:
        if not 0 < part < 1:
            message = (
                "--kept is a share of the multiply-accumulates, above 0 and below 1, such as 0.5; "
                f"got {part:g}"
            )
            raise SelectionError(message)
    if UNIFORM in by:
        message = (
            f"{UNIFORM} is no criterion that a layer could choose; what leaves the same part of "
            "each layer is among what is compared anyway. Leave it out of --by"
        )
        raise SelectionError(message)
    if len(set(by)) < len(by):
        message = f"each criterion may be there once, got --by {' --by '.join(by)}"
        raise SelectionError(message)
    return LfpcStudy(
        base=base, criteria=by or LfpcStudy.criteria, kept=kept or LfpcStudy.kept, seeds=seeds,
        search=SEARCH,
    )  # fmt: skip
