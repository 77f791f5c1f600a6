"""What `tonsor prune` does: a budget, a criterion and a schedule become a slim model in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, get_args

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.api import Report, prune
from tonsor.artifact import save
from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen import choices, scores_named
from tonsor.cli.made import Made, make
from tonsor.cli.show import show, show_json, show_table, step
from tonsor.criteria.registry import find_criterion
from tonsor.criteria.scores import Scores
from tonsor.errors import SelectionError
from tonsor.explain import short
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.select.schedule import Schedule, parse_schedule

if TYPE_CHECKING:
    from tonsor.recover import Recovery
    from tonsor.train.data import Splits


def cut(command: Prune) -> int:
    """Carry out the command and return the exit code."""
    budget = _budget(command)
    schedule = parse_schedule(command.schedule)
    scores = scores_named(command.ranking.by)
    splits = _splits(command, schedule, scores)
    made = make(command.model, command.source, splits)
    won: Recovery | None = None
    if schedule.at_once:
        slim, report = _at_once(command, made, splits, budget, scores)
    else:
        assert splits is not None
        from tonsor.cli.along import prune_along

        slim, report = prune_along(command, made, splits, budget, schedule, scores)
    if command.recover:
        won = _recover(command, made, slim, report, splits)
    total = report.plan if made.earlier is None else report.plan.rebase(made.earlier)
    files = _save(command, slim, total)
    notes = [*report.warnings, *_advice(made, files)]
    if command.json:
        show_json(_as_json(report, budget, notes, files, won))
    else:
        _show(report, notes, files, won)
    return 0


def _budget(command: Prune) -> str | None:
    named = {"macs": command.macs, "params": command.params}
    given = [f"{name}={kept}" for name, kept in named.items() if kept is not None]
    given += [command.budget] if command.budget is not None else []
    if len(given) > 1 or not (given or command.ratio):
        message = "say how much to keep, by one of --budget, --macs and --params: --macs 50%"
        raise SelectionError(message)
    return given[0] if given else None


def _splits(command: Prune, schedule: Schedule, scores: str | Scores) -> Splits | None:
    """Open the images where something looks at them."""
    wanted = []
    if isinstance(scores, str) and find_criterion(scores).reads_data:
        wanted.append(f"--by {scores}")
    if not schedule.at_once:
        wanted.append(f"--schedule {command.schedule}")
    if command.recover:
        wanted.append(f"--recover {command.recover[0]}")
    if command.images.data is None:
        if wanted:
            message = f"{' and '.join(wanted)} needs images: --data cifar10:FOLDER, for example"
            raise SelectionError(message)
        return None
    from tonsor.cli.given import read_splits

    return read_splits(command.images)


def _at_once(
    command: Prune, made: Made, splits: Splits | None, budget: str | None, scores: str | Scores
) -> tuple[nn.Module, Report]:
    options = choices(command, scores)
    if splits is not None:
        from tonsor.cli.given import shown_to_criteria

        options["batches"] = shown_to_criteria(
            splits, command.ranking.score_batch, command.source.seed
        )
        options["at_most"] = command.ranking.score_batches
    doing = step("tracing, ranking, cutting" + (" and proving" if command.verify else ""))
    with doing if splits is None else nullcontext():  # scoring on images has a bar of its own
        return prune(
            made.model, made.inputs, budget=budget, head_dims=command.source.head_dims,
            verify=command.verify, quiet=command.along.quiet, **options,
        )  # fmt: skip


def _recover(
    command: Prune, made: Made, slim: nn.Module, report: Report, splits: Splits | None
) -> Recovery:
    """Recover on training images, and judge on the validation split."""
    from tonsor.cli.given import shown_to_criteria
    from tonsor.recover import recover
    from tonsor.recover.recover import Step
    from tonsor.train.data import Batches

    assert splits is not None
    held = Batches(
        splits.validation, size=256, mean=splits.mean, std=splits.std, shuffle=False, seed=0
    )
    how: list[Step] = [s for s in get_args(Step) if s in command.recover]
    anatomy: Anatomy = report.anatomy
    with step("recovering"):
        return recover(
            anatomy.model, slim, report.plan, anatomy,
            shown_to_criteria(splits, 200, command.source.seed), how=how,
            held_out=held if len(splits.validation) else None, quiet=True,
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


def _advice(made: Made, files: dict[str, str]) -> Iterator[str]:
    if made.random:
        yield "the weights were random; --weights FILE prunes trained ones"
    if not files:
        yield "nothing was saved; --out slim.tonsor keeps the slim model, --plan the plan"


def _show(report: Report, notes: list[str], files: dict[str, str], won: Recovery | None) -> None:
    rows = [
        (name, short(before), short(after), f"{after / (before or 1):.1%}")
        for name, (before, after) in (("parameters", report.params), ("MACs", report.macs))
    ]
    name = type(report.anatomy.model).__name__
    show_table(("", "before", "after", "kept"), rows, title=name, numbers=1)
    cut, free = len(report.plan.keep), len(report.anatomy.prunable)
    show(f"{cut} of {free} free groups were cut, {len(report.anatomy.pinned)} may not be")
    show(f"proven: {report.proof}" if report.proof else "not proven (--no-verify)")
    if won is not None:
        show(won)
    for note in notes:
        show(f"note: {note}", "yellow")
    for path in files.values():
        show(f"written: {path}", "green")


def _as_json(
    report: Report,
    budget: str | None,
    notes: list[str],
    files: dict[str, str],
    won: Recovery | None,
) -> dict[str, Any]:
    proof = report.proof
    return {
        "model": type(report.anatomy.model).__name__,
        "budget": budget,
        "params": dict(zip(("before", "after"), report.params, strict=True)),
        "macs": dict(zip(("before", "after"), report.macs, strict=True)),
        "kept": report.plan.counts,
        "proof": None if proof is None else {"error": proof.error, "tolerance": proof.tolerance},
        "recovery": None if won is None else won.to_json(),
        "notes": notes,
        "files": files,
    }
