"""Removing blocks, from the command line: at once, or one after the other with training between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from tonsor.anatomy import inspect
from tonsor.api import Report, prune_blocks
from tonsor.cli.choose_options import Prune
from tonsor.cli.chosen_blocks import (
    USUAL,
    batches_seen,
    block_scores_named,
    blocks_each,
    level_of,
    looks_at_data,
    removed,
)
from tonsor.cli.family import check_whole
from tonsor.cli.made import Made, make
from tonsor.cli.outcome import Outcome, splits_for
from tonsor.cost.bench import Bench
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import CheckpointError, SelectionError

if TYPE_CHECKING:
    from tonsor.methods.layerprune.iterative import Step
    from tonsor.train.data import Splits


def cut_blocks(command: Prune, budget: str | None, bench: Bench) -> Outcome:
    """Remove blocks as the command says."""
    each, remove = blocks_each(command), removed(command)
    by = block_scores_named(command.ranking.by or USUAL)
    ranked = budget is not None or isinstance(remove, int)  # who names blocks has ranked them
    wanted = [f"--by {by}"] if ranked and looks_at_data(by) else []
    if each:
        wanted.append(f"--schedule {command.schedule}")
        _check_steps(command, budget, remove, each, by)
    splits = splits_for(command, wanted)
    made = make(command.model, command.source, splits)
    check_whole(command, made)
    if each:
        assert splits is not None
        assert isinstance(remove, int)
        assert isinstance(by, str)
        return Outcome(made, splits, *_step_by_step(command, made, splits, remove, each, by))
    options: dict[str, Any] = {}
    if splits is not None and ranked:
        from tonsor.cli.given import held_out, shown_to_criteria

        size, seed = command.ranking.score_batch, command.source.seed
        options["batches"] = shown_to_criteria(splits, size, seed)
        options["judge"] = held_out(splits)
        options["at_most"] = batches_seen(command.ranking.score_batches, by)
    slim, report = prune_blocks(
        made.model, made.inputs, budget=budget, remove=remove, by=by, level=level_of(command),
        keep=command.keep, seed=command.source.seed, bench=bench, quiet=command.along.quiet,
        verify=command.verify, **options,
    )  # fmt: skip
    return Outcome(made, splits, slim, report)


def _check_steps(
    command: Prune,
    budget: str | None,
    remove: int | list[str] | None,
    each: int,
    by: str | BlockScores,
) -> None:
    if budget is not None or not isinstance(remove, int):
        message = f"--schedule {command.schedule} takes the number of blocks to go: --remove 4"
        raise SelectionError(message)
    if remove % each:
        message = f"--remove {remove} is no multiple of the {each} blocks of a step"
        raise SelectionError(message)
    if isinstance(by, BlockScores):
        message = (
            f"--schedule {command.schedule} scores anew after each step, so --by takes a "
            "criterion, not a file"
        )
        raise SelectionError(message)
    if (command.along.run / "steps.json").exists() and not command.along.resume:
        message = (
            f"'{command.along.run}' holds a run already; go on with it by --resume, or choose "
            "another folder by --run"
        )
        raise CheckpointError(message)


def _step_by_step(
    command: Prune, made: Made, splits: Splits, remove: int, each: int, by: str
) -> tuple[nn.Module, Report, tuple[Step, ...]]:
    """Remove some, train on, score anew; every step is kept in the folder of the run."""
    from tonsor.cli.along import recipe_between
    from tonsor.cli.given import held_out, shown_to_criteria
    from tonsor.methods.layerprune.iterative import prune_iteratively
    from tonsor.train.loop import fit

    along, seed = command.along, command.source.seed
    recipe = recipe_between(along, seed)
    judge = held_out(splits)

    def tune(slim: nn.Module, number: int) -> None:
        fit(
            slim, splits, recipe, folder=along.run / f"step{number}", resume=along.resume,
            device=along.device, board=False, quiet=along.quiet,
        )  # fmt: skip
        slim.cpu()  # where it is scored

    slim, total, steps = prune_iteratively(
        made.model, made.inputs, remove // each, each=each, by=by, level=level_of(command),
        keep=command.keep, tune=tune,
        batches=lambda: shown_to_criteria(splits, command.ranking.score_batch, seed),
        judge=None if judge is None else lambda: judge,
        at_most=batches_seen(command.ranking.score_batches, by), seed=seed, folder=along.run,
        verify=command.verify, quiet=along.quiet,
    )  # fmt: skip
    gone = sum(len(s.gone) for s in steps)
    if gone != remove:
        message = (
            f"the run in '{along.run}' has removed {gone} blocks, not {remove}; ask for that, or "
            "begin a run in another folder"
        )
        raise CheckpointError(message)
    proof = None
    if command.verify:  # training has changed the weights, so on those from before
        proof = total.prove(made.model, total.apply(made.model, verify=False))
    return slim, Report(total, inspect(made.model, made.inputs), proof), steps
