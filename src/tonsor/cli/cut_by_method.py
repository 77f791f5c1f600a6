"""Removing what a training finds to be of no use, from the command line."""

from __future__ import annotations

from tonsor.cli.choose_options import Prune
from tonsor.cli.family import FIBRES, check_whole, family_of
from tonsor.cli.made import grown, make
from tonsor.cli.outcome import Outcome, splits_for


def cut_by_method(command: Prune, budget: str | None) -> Outcome:
    """Train by the method that the command names, and cut what it says."""
    splits = splits_for(command, [f"--method {command.method}"])
    assert splits is not None
    made, after = make(command.model, command.source, splits), None
    if family_of(command) in FIBRES:
        made, after = grown(made)
    else:
        check_whole(command, made)
    from tonsor.cli.along_method import train_by_method

    slim, report, test = train_by_method(command, made, splits, budget, after)
    return Outcome(made, splits, slim, report, test=test)
