"""Make a plan that removes blocks: scores and a budget become what goes and what stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.cost.table import Memory
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.stream import Loss
from tonsor.errors import BudgetError, SelectionError
from tonsor.families.blocks.block import Blocks
from tonsor.families.blocks.find import Level, find_blocks
from tonsor.plans import Plan
from tonsor.select.block_budget import counted, timed
from tonsor.select.budget import Budget, as_budget, is_measured
from tonsor.select.drop import drop_plan, that_go_together, with_numbers_that_hold
from tonsor.select.names import Named, as_names


def plan_blocks(
    anatomy: Anatomy,
    budget: str | Budget | None = None,
    *,
    remove: int | Iterable[str] | None = None,
    by: str | BlockScores = "imprint",
    level: Level = "block",
    blocks: Blocks | None = None,
    keep: Iterable[Named] = (),
    batches: Iterable[Any] | None = None,
    judge: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    after: Plan | None = None,
    bench: Bench | None = None,
    memory: Memory | None = None,
    quiet: bool = False,
) -> Plan:
    """Decide which blocks go, the least important first.

    Either `budget` says what is *kept*, as `"latency=70%"`, `"latency=12ms"`, `"macs=50%"` or
    `"pieces=75%"` of the blocks, or `remove` says how many blocks go, or which. A latency is
    measured as `bench` says, and corrected until the measured figure holds.

    `by` names a criterion of `score_blocks`, whose data are `batches` and `judge`, or gives
    scores. `keep` lists blocks, modules or patterns that stay. `level="branch"` removes attention
    and feed-forward of a layer each on its own. `after` is an earlier plan of the same model,
    whose cuts stay and whose blocks are gone.
    """
    found = blocks or find_blocks(anatomy, level=level)
    wanted = _wanted(budget, remove)
    gone = () if after is None else tuple(d.name for d in after.drops)
    made: dict[str, Any] = {"level": level, "seed": seed}

    def build(names: Sequence[str]) -> Plan:
        return drop_plan(anatomy, found, [*gone, *names], made_by=made, after=after)

    if not isinstance(wanted, (Budget, int)):
        return with_numbers_that_hold(anatomy, build(wanted))
    if not found.removable:
        raise SelectionError(_none_to_remove(found))
    if not isinstance(by, BlockScores):
        by = score_blocks(
            anatomy, found, by, batches=batches, judge=judge, loss=loss, at_most=at_most,
            seed=seed, quiet=quiet,
        )  # fmt: skip
    made |= {"by": by.by, "unscored": dict(by.unscored), "notes": list(by.notes)}
    made |= {"scores": {n: float(v) for n, v in by.values.items()}}
    stay = kept_blocks(anatomy, found, keep)
    ranked = by.ranking(b.name for b in found.removable if b.name not in {*stay, *gone})
    order, left = that_go_together(anatomy, found, ranked, after)
    if left:
        name, why = next(iter(left.items()))
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        made["notes"] = [*by.notes, f"left in place: '{name}'{more}; {why}"]
    if isinstance(wanted, int):
        if wanted > len(order):
            message = (
                f"{wanted} blocks can't go: only {len(order)} of {len(found)} may and have a score"
            )
            raise BudgetError(message, minimum=len(order))
        return with_numbers_that_hold(anatomy, build(order[:wanted]))
    if is_measured(wanted.target):
        decided = timed(
            anatomy, found, wanted, order, build, bench=bench, memory=memory, quiet=quiet
        )
    else:
        decided = counted(anatomy, found, wanted, order, build)
    return with_numbers_that_hold(anatomy, decided)


def _wanted(
    budget: str | Budget | None, remove: int | Iterable[str] | None
) -> Budget | int | list[str]:
    if (budget is None) == (remove is None):
        message = "say either what to keep (budget='latency=70%') or what to remove (remove=4)"
        raise BudgetError(message)
    if budget is not None:
        return as_budget(budget)
    if isinstance(remove, bool) or (isinstance(remove, int) and remove < 0):
        message = f"remove is a number of blocks or their names, got {remove!r}"
        raise BudgetError(message)
    if isinstance(remove, int):
        return remove
    assert remove is not None
    return [remove] if isinstance(remove, str) else list(remove)


def kept_blocks(anatomy: Anatomy, blocks: Blocks, keep: Iterable[Named]) -> set[str]:
    """Return the blocks that are named, or hold or lie inside of what is."""
    found: set[str] = set()
    for name in as_names(anatomy, keep):
        hits = {
            b.name for b in blocks
            if any(_touches(m, name) for m in b.modules) or fnmatchcase(b.name, name)
        }  # fmt: skip
        if not hits and not any(fnmatchcase(n, name) for n in anatomy.graph.module_types):
            message = (
                f"nothing to keep is called '{name}'; the blocks are {', '.join(blocks.by_name)}"
            )
            raise SelectionError(message)
        found |= hits
    return found


def _touches(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.") or name.startswith(f"{module}.")


def _none_to_remove(blocks: Blocks) -> str:
    if not len(blocks):
        return (
            "no block was found in this model: no shortcut leads around a module, and no layer "
            "hands one tensor on"
        )
    return "no block of this model may go: " + "; ".join(
        f"'{b.name}' {b.reason}" for b in blocks[:3]
    )
