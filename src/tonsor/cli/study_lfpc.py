"""The study of learned criteria on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.criteria.registry import find_criterion
from tonsor.errors import SelectionError
from tonsor.study.base import Base
from tonsor.study.criteria import UNIFORM
from tonsor.study.lfpc import LfpcStudy, lfpc_trial
from tonsor.study.lfpc_overlap import overlaps
from tonsor.study.lfpc_tell import draw, page
from tonsor.study.paired import Answers, accuracy
from tonsor.study.trials import run_trials

_VALIDATION = 2000
_PART = 10
_ALL = 10**9


def lfpc(
    command: Study, chosen: LfpcStudy, answers: Answers
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study; return the results, and the page that tells them.

    `answers` are those of the whole network to the test images.
    """
    found = run_trials(
        lfpc_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    whole = accuracy([answers])
    draw(chosen, found, whole, command.out)
    return found, page(chosen, found, whole, answers=answers, overlaps=overlaps(chosen, found))


def lfpc_study(
    base: Base, by: tuple[str, ...], kept: tuple[float, ...], seeds: tuple[int, ...]
) -> LfpcStudy:
    """Make the study: of which criteria, at which shares of the multiply-accumulates.

    Of the training images two thousand are kept to decide by, or a tenth if that is fewer.
    """
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
            "each layer is compared anyway. Leave it out of --by"
        )
        raise SelectionError(message)
    if seeing := [name for name in by if find_criterion(name).reads_data]:
        message = (
            f"{seeing[0]} looks at data, and the criteria of this study are those of weights, "
            "which are scored anew after each step; leave it out of --by"
        )
        raise SelectionError(message)
    if len(set(by)) < len(by):
        message = f"each criterion may be there once, got --by {' --by '.join(by)}"
        raise SelectionError(message)
    every = len(replace(base, images=_ALL).splits(0).train)
    return LfpcStudy(
        base=replace(base, validation=min(_VALIDATION, every // _PART)),
        criteria=by or LfpcStudy.criteria, kept=kept or LfpcStudy.kept, seeds=seeds,
    )  # fmt: skip
