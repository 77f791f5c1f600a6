"""What `tonsor prune` does: a budget, a criterion and a schedule become a slim model in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, get_args

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.api import Report, prune
from tonsor.artifact import save
from tonsor.cli.check_method import check_method
from tonsor.cli.choose_options import Prune, Timed
from tonsor.cli.chosen import choices, scores_named
from tonsor.cli.chosen_blocks import batches_seen
from tonsor.cli.cut_blocks import cut_blocks
from tonsor.cli.cut_by_method import cut_by_method
from tonsor.cli.cut_fibres import cut_fibres
from tonsor.cli.family import FIBRES, check_at_once, check_family, check_whole, family_of
from tonsor.cli.made import Made, make
from tonsor.cli.outcome import Outcome, splits_for
from tonsor.cli.show import show_json, step
from tonsor.cli.timing import bench_of, measure_cut, measured_by, run_fastest
from tonsor.cli.told import Told
from tonsor.cost.bench import Bench
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.scores import Scores
from tonsor.errors import SelectionError
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.select.budget import as_budget, is_measured
from tonsor.select.make import WITHIN
from tonsor.select.schedule import parse_schedule

if TYPE_CHECKING:
    from tonsor.recover import Recovery
    from tonsor.train.data import Splits


_INSTEAD = {
    "blocks": ". Or say which blocks go: --remove 4",
    "branches": ". Or say which blocks go: --remove 4",
    "stripes": ". Or say by --threshold which stripes go",
    "columns": ". Or say by --threshold which columns go",
    "spp": ". Or say which part goes: --ratio 0.75",
}


def cut(command: Prune) -> int:
    """Carry out the command and return the exit code."""
    check_family(command)
    if command.method is None:
        check_at_once(command)
    else:
        check_method(command)
    budget = _budget(command)
    bench = bench_of(command.timed, command.along.device, command.source, WITHIN)
    family = family_of(command)
    if command.method is not None:
        done = cut_by_method(command, budget)
    elif family == "channels":
        done = _cut_channels(command, budget, bench)
    elif family in FIBRES:
        done = cut_fibres(command, budget)
    else:
        done = cut_blocks(command, budget, bench)
    made, slim = done.made, done.slim
    won: Recovery | None = None
    if command.recover:
        won = _recover(command, made, slim, done.report, done.splits)
    if command.measure:
        done = run_fastest(bench, done, quiet=command.along.quiet)
    report = done.report
    total = report.plan if made.earlier is None else report.plan.rebase(made.earlier)
    files = _save(command, slim, total)
    measured, failed = measured_by(report.plan), ""
    if measured is None and _measures(command):
        measured, failed = measure_cut(bench, report.anatomy.model, slim, made.inputs)
    notes = [*report.warnings, *([failed] if failed else []), *_advice(command, made, files)]
    told = Told(done, measured, won, notes, files)
    if command.json:
        show_json(told.to_json(budget))
    else:
        told.show()
    return 0


def _budget(command: Prune) -> str | None:
    named = {"macs": command.macs, "params": command.params}
    given = [f"{name}={kept}" for name, kept in named.items() if kept is not None]
    given += [command.budget] if command.budget is not None else []
    threshold = command.threshold
    other = command.ratio or command.remove or threshold is not None
    if len(given) > 1 or not (given or other):
        message = "say how much to keep, by one of --budget, --macs and --params: --macs 50%"
        raise SelectionError(message + _INSTEAD.get(_says(command), ""))
    if given and threshold is not None:
        message = f"say either what to keep ({given[0]}) or what goes (--threshold), not both"
        raise SelectionError(message)
    if given and command.ratio and command.method == "spp":
        message = f"say either what to keep ({given[0]}) or what goes (--ratio), not both"
        raise SelectionError(message)
    if given and command.remove:
        message = f"say either what to keep ({given[0]}) or what goes (--remove), not both"
        raise SelectionError(message)
    return given[0] if given else None


def _says(command: Prune) -> str:
    return "spp" if command.method == "spp" else family_of(command)


def _measures(command: Prune) -> bool:
    """Whether latency is told that is not the budget: for channels only if it is asked for."""
    asked = family_of(command) != "channels" or command.timed != Timed()
    return asked and command.measure


def _cut_channels(command: Prune, budget: str | None, bench: Bench) -> Outcome:
    schedule = parse_schedule(command.schedule)
    scores = scores_named(command.ranking.by)
    measures = budget is not None and is_measured(as_budget(budget).target)
    if measures and not schedule.at_once:
        message = (
            f"--schedule {command.schedule} needs a budget that is counted, such as macs=50%; a "
            "latency can be met at once only (--schedule one-shot), and trained on afterwards by "
            "tonsor finetune"
        )
        raise SelectionError(message)
    wanted = []
    if isinstance(scores, str) and find_criterion(scores).reads_data:
        wanted.append(f"--by {scores}")
    if not schedule.at_once:
        wanted.append(f"--schedule {command.schedule}")
    splits = splits_for(command, wanted)
    made = make(command.model, command.source, splits)
    check_whole(command, made)
    if schedule.at_once:
        found = _at_once(command, made, splits, budget, scores, bench if measures else None)
        return Outcome(made, splits, *found)
    assert splits is not None
    from tonsor.cli.along import prune_along

    slim, report, test = prune_along(command, made, splits, budget, schedule, scores)
    return Outcome(made, splits, slim, report, test=test)


def _at_once(
    command: Prune,
    made: Made,
    splits: Splits | None,
    budget: str | None,
    scores: str | Scores,
    bench: Bench | None,
) -> tuple[nn.Module, Report]:
    options = choices(command, scores)
    if bench is not None:
        options["bench"] = bench
    if splits is not None:
        from tonsor.cli.given import shown_to_criteria

        options["batches"] = shown_to_criteria(
            splits, command.ranking.score_batch, command.source.seed
        )
        options["at_most"] = batches_seen(command.ranking.score_batches, scores)
    doing = step("tracing, ranking, cutting" + (" and proving" if command.verify else ""))
    alone = splits is None and bench is None
    with doing if alone else nullcontext():  # scoring on images, and measuring, have their bars
        return prune(
            made.model, made.inputs, budget=budget, head_dims=command.source.head_dims,
            verify=command.verify, quiet=command.along.quiet, **options,
        )  # fmt: skip


def _recover(
    command: Prune, made: Made, slim: nn.Module, report: Report, splits: Splits | None
) -> Recovery:
    """Recover on training images, and judge on the validation split."""
    from tonsor.cli.given import held_out, shown_to_criteria
    from tonsor.recover import recover
    from tonsor.recover.recover import Step

    assert splits is not None
    how: list[Step] = [s for s in get_args(Step) if s in command.recover]
    anatomy: Anatomy = report.anatomy
    with step("recovering"):
        return recover(
            anatomy.model, slim, report.plan, anatomy,
            shown_to_criteria(splits, 200, command.source.seed), how=how,
            held_out=held_out(splits), quiet=True,
        )  # fmt: skip


def _save(command: Prune, slim: nn.Module, total: Plan) -> dict[str, str]:
    files = {}
    if command.out is not None:
        with step(f"writing {command.out}"):
            save(command.out, slim, total)
        files["out"] = str(command.out)
    if command.plan is not None:
        save_plan(command.plan, total)
        files["plan"] = str(command.plan)
    return files


def _advice(command: Prune, made: Made, files: dict[str, str]) -> Iterator[str]:
    if made.random and command.method not in ("swp", "lasso"):  # which train from the beginning
        yield "the weights were random; --weights FILE prunes trained ones"
    if made.restored:
        yield (
            "some stripes or columns were gone already; 'before', and what a budget says, are of "
            "the model with all of them"
        )
    if not files:
        yield "nothing was saved; --out slim.tonsor keeps the slim model, --plan the plan"
