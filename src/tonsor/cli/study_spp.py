"""The studies of SPP on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.errors import SelectionError
from tonsor.methods.spp.table import tables
from tonsor.study.base import Base
from tonsor.study.paired import Figure
from tonsor.study.spp import SppStudy, spp_trial
from tonsor.study.spp_settings import SettingsStudy, settings_page, settings_trial
from tonsor.study.spp_tell import draw, page
from tonsor.study.trials import run_trials

PAPER = "convnet"  # the network of the tables and of the figure of the supplement


def spp(
    command: Study, base: Base, seeds: tuple[int, ...], whole: Figure
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study; return the results, and the page that tells them."""
    if command.by:
        message = "--by has no meaning for spp, which compares ways of training and of cutting"
        raise SelectionError(message)
    chosen = spp_study(base, command.kept, seeds)
    found = run_trials(
        spp_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    draw(chosen, found, whole, command.out)
    simulated = tables(range(5)) if base.network == PAPER else None
    return found, page(chosen, found, whole, simulated)


def spp_settings(
    command: Study, base: Base, seeds: tuple[int, ...], whole: Figure
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study of settings; return the results, and their page."""
    if command.by or command.kept:
        message = "--by and --kept have no meaning for spp-settings, which varies t, A and u at 4x"
        raise SelectionError(message)
    chosen = SettingsStudy(base=base, seeds=seeds)
    found = run_trials(
        settings_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    return found, settings_page(chosen, found, whole)


def spp_study(base: Base, kept: tuple[float, ...], seeds: tuple[int, ...]) -> SppStudy:
    """Make the study as large as the network allows: what a part of the work is kept of.

    On ConvNet, which the supplement is about, the choices that SPP makes are tried too.
    """
    for part in kept:
        if not 0 < part < 1:
            message = (
                f"--kept is a part of the multiply-accumulates of convolutions, above 0 and below "
                f"1, got {part:g}; 0.25 is a speed-up of 4x"
            )
            raise SelectionError(message)
    speedups = tuple(sorted({round(1 / part, 6) for part in kept})) or SppStudy.speedups
    if base.network == PAPER:
        return SppStudy(base=base, speedups=speedups, seeds=seeds)
    return SppStudy(
        base=base, speedups=speedups, seeds=seeds, kinds=("spp", "columns", "filters"), extra=()
    )  # fmt: skip
