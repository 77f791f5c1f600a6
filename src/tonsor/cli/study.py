"""What `tonsor study` does: run the trials that are missing, and tell what all of them show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.cli.chosen_blocks import looks_at_data
from tonsor.cli.show import show, show_json, show_table
from tonsor.criteria.registry import find_criterion
from tonsor.errors import SelectionError
from tonsor.files import replacing
from tonsor.methods.spsrc import table1
from tonsor.report.heatmap import heatmap
from tonsor.report.raw import save_figure
from tonsor.study import criteria_tell, schedules, spsrc
from tonsor.study.base import TUNE, Base
from tonsor.study.criteria import UNIFORM, CriteriaStudy, criteria_trial
from tonsor.study.markdown import table
from tonsor.study.paired import Answers, Figure, accuracy, unpacked
from tonsor.study.schedules import SchedulesStudy, schedules_trial
from tonsor.study.spsrc import SpsrcStudy, spsrc_trial
from tonsor.study.spsrc_figures import draw_spsrc
from tonsor.study.trials import run_trials

_WHOLE = "whole.json"


def study(command: Study) -> int:
    """Carry out the command and return the exit code."""
    for by in command.by:
        if command.what == "layerprune":
            looks_at_data(by)
        elif by != UNIFORM:
            find_criterion(by)
    base = Base(
        network=command.network, weights=str(command.weights), data=command.data,
        mean=command.mean, std=command.std, images=command.images,
        recipe=TUNE.but(epochs=command.epochs),
    )  # fmt: skip
    seeds = tuple(range(command.seeds))
    match command.what:
        case "criteria":
            return _criteria(command, base, seeds)
        case "schedules":
            return _schedules(command, base, seeds)
        case "spsrc":
            return _spsrc(command, base, seeds)
        case "layerprune":
            from tonsor.cli.study_layerprune import layerprune

            return _told(command, *layerprune(command, base, seeds))
        case "swp":
            from tonsor.cli.study_swp import RATE, swp

            base = replace(base, recipe=base.recipe.but(lr=RATE))
            return _told(command, *swp(command, base, seeds, _whole(base, command.out)))
        case "spp":
            from tonsor.cli.study_spp import spp

            return _told(command, *spp(command, base, seeds, _whole(base, command.out)))
        case "lfpc":
            from tonsor.cli.study_lfpc import lfpc, lfpc_study

            chosen = lfpc_study(base, command.by, command.kept, seeds)
            return _told(command, *lfpc(command, chosen, _answers(base, command.out)))
        case "spp-settings":
            from tonsor.cli.study_spp import spp_settings

            return _told(command, *spp_settings(command, base, seeds, _whole(base, command.out)))


def _criteria(command: Study, base: Base, seeds: tuple[int, ...]) -> int:
    chosen = CriteriaStudy(
        base=base, by=command.by, kept=tuple(command.kept) or CriteriaStudy.kept, seeds=seeds
    )
    found = run_trials(
        criteria_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    page = "\n".join(criteria_tell.markdown(chosen, found, _whole(base, command.out)))
    names, matrix = criteria_tell.alike(chosen, found)
    if len(names) > 1:
        data = {"names": names, "spearman": matrix, "seed": chosen.seeds[0]}
        save_figure(command.out / "correlation.svg", heatmap(names, matrix), data)
    return _told(command, found, page)


def _schedules(command: Study, base: Base, seeds: tuple[int, ...]) -> int:
    chosen = SchedulesStudy(
        base=base, by=command.by or SchedulesStudy.by,
        kept=tuple(command.kept) or SchedulesStudy.kept, seeds=seeds,
    )  # fmt: skip
    found = run_trials(
        schedules_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    rows = list(schedules.schedules_table(chosen, found))
    return _told_table(command, base, found, schedules.HEADER, rows, len(seeds))


def _spsrc(command: Study, base: Base, seeds: tuple[int, ...]) -> int:
    chosen = SpsrcStudy(base=base, by=command.by or SpsrcStudy.by, seeds=seeds)
    if not chosen.configurations:
        message = (
            f"SPSRC has no configuration of {command.network}; it has some of vgg16, resnet56, "
            "resnet110 and resnet34"
        )
        raise SelectionError(message)
    found = run_trials(
        spsrc_trial, chosen, chosen.trials(), command.out, processes=command.processes,
        quiet=command.quiet,
    )  # fmt: skip
    rows = list(spsrc.spsrc_table(chosen, found))
    draw_spsrc(base.anatomy(base.model()), base.network, command.out)
    if base.network == "resnet110":
        _write(command.out / "table1.txt", f"{table1(spsrc.measured(chosen, found))}\n")
    return _told_table(command, base, found, spsrc.HEADER, rows, len(seeds))


def _told_table(
    command: Study,
    base: Base,
    found: Mapping[str, Mapping[str, Any]],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    seeds: int,
) -> int:
    whole = _whole(base, command.out)
    lines = [f"## {base.network}, {whole.percent} % before anything is cut", ""]
    lines += table(header, rows)
    lines += ["", *(f"- {c}" for c in base.conditions(seeds))]
    return _told(command, found, "\n".join(lines))


def _told(command: Study, found: Mapping[str, Mapping[str, Any]], page: str) -> int:
    _write(command.out / "table.md", page + "\n")
    bare = {k: {n: v for n, v in r.items() if n != "scores"} for k, r in found.items()}
    _write(command.out / "results.json", json.dumps(bare, indent=1) + "\n")
    if command.json:
        show_json(bare)
        return 0
    _print(page)
    show(f"written: {command.out}, with the table, the numbers and the figures", "green")
    return 0


def _print(page: str) -> None:
    """Show a page of Markdown, its tables as tables."""
    table: list[list[str]] = []
    for line in [*page.splitlines(), ""]:
        if line.startswith("|"):
            table.append([c.strip() for c in line.strip("|").split("|")])
            continue
        if table:
            show_table(table[0], table[2:], numbers=1)
            table = []
        if line:
            show(line.lstrip("# "))


def _whole(base: Base, folder: Path) -> Figure:
    """Judge the uncut network, once for all."""
    return accuracy([_answers(base, folder)])


def _answers(base: Base, folder: Path) -> Answers:
    """Return which test images the uncut network gets right."""
    path = folder / _WHOLE
    if not path.exists():
        _write(path, json.dumps({"answers": base.judge(base.model())}) + "\n")
    right = json.loads(path.read_text("utf-8"))["answers"]
    return unpacked(right, len(base.splits(0).test))


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, "utf-8")
