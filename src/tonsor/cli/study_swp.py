"""The study of stripes on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.errors import SelectionError
from tonsor.study.base import Base
from tonsor.study.paired import Figure
from tonsor.study.swp import SwpStudy, swp_trial
from tonsor.study.swp_tell import draw, page
from tonsor.study.trials import run_trials

RATE = 0.03  # what the pieces of filters are trained with, for the few passes that there are


def swp(
    command: Study, base: Base, seeds: tuple[int, ...], whole: Figure
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study; return the results, and the page that tells them."""
    if command.by:
        message = "--by has no meaning for swp, which compares ways of training and of cutting"
        raise SelectionError(message)
    chosen = SwpStudy(base=base, kept=tuple(command.kept) or SwpStudy.kept, seeds=seeds)
    found = run_trials(
        swp_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    draw(chosen, found, whole, command.out)
    return found, page(chosen, found, whole)
