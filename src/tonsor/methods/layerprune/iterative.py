"""Remove blocks one after another, training on and scoring anew in between.

What is gone stays gone: each step looks only at the blocks that are left. (Public code for the
same picks all blocks anew from the newest scores, where one that was removed may come back with
weights that nobody has trained.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tonsor.anatomy import inspect
from tonsor.artifact import load, read_plan, save
from tonsor.criteria.blocks.compare import block_correlation
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.stream import Loss
from tonsor.errors import BudgetError, PlanError
from tonsor.families.blocks.find import Level, find_blocks
from tonsor.files import replacing
from tonsor.plans import Plan
from tonsor.select.block_plan import plan_blocks

Tune = Callable[[nn.Module, int], None]
"""Trains a model in place; the number says after which step."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what went, by which scores, and how much their order is that of the first ones.

    `spearman` compares the ranking of the blocks that are left after the step with the one-shot
    ranking of the same blocks; None where there are too few of them.
    """

    gone: tuple[str, ...]
    scores: BlockScores
    spearman: float | None


def prune_iteratively(
    model: nn.Module,
    inputs: Any,
    steps: int,
    *,
    each: int = 1,
    by: str = "imprint",
    level: Level = "block",
    keep: Iterable[str] = (),
    tune: Tune | None = None,
    batches: Callable[[], Iterable[Any]] | None = None,
    judge: Callable[[], Iterable[Any]] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    verify: bool = True,
    quiet: bool = False,
) -> tuple[nn.Module, Plan, tuple[Step, ...]]:
    """Remove `each` blocks a step, the least important first, and train on with `tune`.

    `batches` and `judge` make the data of a step anew each time. Returns the slim model with its
    trained weights, the plan from the original to it, and what happened. With a `folder` every
    step is saved there, and a run that was stopped goes on after the last.
    """
    if steps < 1 or each < 1:
        message = f"iterative pruning takes steps of at least one block, got {steps} of {each}"
        raise BudgetError(message)
    path = None if folder is None else Path(folder)
    slim, total, done = _resumed(path, model)

    def scored(now: nn.Module) -> BlockScores:
        anatomy = inspect(now, inputs)
        return score_blocks(
            anatomy, find_blocks(anatomy, level=level), by, loss=loss, at_most=at_most, seed=seed,
            batches=None if batches is None else batches(),
            judge=None if judge is None else judge(), quiet=quiet,
        )  # fmt: skip

    first = done[0].scores if done else None
    scores = done[-1].scores if done else scored(slim)
    first = first or scores
    for number in range(max(0, len(done) - 1) + 1, steps + 1):
        decided = plan_blocks(
            inspect(slim, inputs), remove=each, by=scores, level=level, keep=keep, quiet=quiet
        )
        slim = decided.apply(slim, verify=verify)
        total = decided if total is None else decided.rebase(total)
        if tune is not None:
            tune(slim, number)
        scores = scored(slim)
        step = Step(tuple(d.name for d in decided.drops), scores, block_correlation(first, scores))
        done = [*(done or [Step((), first, None)]), step]
        if path is not None:
            _save(path, number, slim, total, done)
    assert total is not None
    return slim, total, tuple(done[1:])


def _save(path: Path, number: int, slim: nn.Module, total: Plan, done: list[Step]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    save(path / f"step{number}.tonsor", slim, total)
    rows = [
        {"gone": list(s.gone), "scores": s.scores.to_json(), "spearman": s.spearman} for s in done
    ]
    with replacing(path / "steps.json") as part:
        part.write_text(json.dumps({"steps": rows}, indent=1) + "\n", "utf-8")


def _resumed(path: Path | None, model: nn.Module) -> tuple[nn.Module, Plan | None, list[Step]]:
    """Return where an earlier run has stopped, or the beginning."""
    if path is None or not (path / "steps.json").exists():
        return model, None, []
    try:
        rows = json.loads((path / "steps.json").read_text("utf-8"))["steps"]
        done = [
            Step(tuple(r["gone"]), BlockScores.from_json(r["scores"]), r["spearman"]) for r in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        message = f"'{path / 'steps.json'}' can't be read ({error}); delete it to begin anew"
        raise PlanError(message) from error
    last = path / f"step{len(done) - 1}.tonsor"
    return load(last, model), read_plan(last), done
