"""How many blocks go, the least important first, until what stays meets a budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.cost.latency import Latency
from tonsor.cost.progress import bar
from tonsor.cost.table import Memory
from tonsor.errors import BudgetError
from tonsor.families.blocks.block import Blocks
from tonsor.plans import Plan
from tonsor.select.block_table import block_table
from tonsor.select.budget import Budget, is_speedup
from tonsor.select.make import WITHIN

Build: TypeAlias = Callable[[Sequence[str]], Plan]
"""From the names of blocks that go to the plan that removes them."""

_WHOLE, _SLIM = "whole", "slim"
_CAREFUL = 2


def counted(
    anatomy: Anatomy, blocks: Blocks, budget: Budget, order: Sequence[str], build: Build
) -> Plan:
    """Remove blocks in this order until what is counted meets the budget."""
    tell = _teller(anatomy, blocks, budget.target)
    faster = is_speedup(budget.target)
    whole = tell(build([]))
    limit = budget.amount or 1.0 if faster else budget.limit(whole)
    told = whole
    for number in range(len(order) + 1):
        plan = build(order[:number])
        told = tell(plan)
        if (told >= limit) if faster else (told <= limit):
            made = {"budget": str(budget), "limit": limit, "reached": told, "whole": whole}
            return replace(plan, made_by={**plan.made_by, **made, "met": True})
    share = f"{told:.4g}x" if faster else f"{100 * told / whole:.4g}%"
    proposed = f"{int(1000 * told) / 1000:g}x" if faster else f"{100 * told / whole + 0.05:.1f}%"
    message = (
        f"{budget} can't be met by removing blocks: without all {len(order)} that may go "
        f"{budget.target} is {share}. Ask for {budget.target}={proposed}, or cut channels of what "
        "is left too"
    )
    raise BudgetError(message, minimum=told)


def _teller(anatomy: Anatomy, blocks: Blocks, target: str) -> Callable[[Plan], float]:
    if target == "pieces":
        return lambda plan: len(blocks.removable) - len(plan.drops)
    return lambda plan: anatomy.cost_without(plan.drops, plan.fibres).amount(
        target, plan.amounts, before=anatomy.cost
    )


def timed(
    anatomy: Anatomy,
    blocks: Blocks,
    budget: Budget,
    order: Sequence[str],
    build: Build,
    *,
    bench: Bench | None = None,
    memory: Memory | None = None,
    quiet: bool = False,
) -> Plan:
    """Remove blocks in this order until the measured latency meets the budget.

    A table of timings says how many blocks that may take; what is left is then measured against
    the whole model in turns, and corrected until the figure that was measured holds.
    """
    bench = bench or Bench(within=WITHIN)
    table = block_table(anatomy, blocks, bench, memory=memory, quiet=quiet)
    goal = budget.kept
    allowed = table.predict() * goal if goal is not None else (budget.amount or 0.0)
    guess = next(
        (n for n in range(len(order) + 1) if table.predict(order[:n]) <= allowed), len(order)
    )
    with bar(f"meeting {budget}", len(order) + 2, quiet=quiet) as advance:
        given = bench.inputs(anatomy.inputs)
        whole = bench.ready(anatomy.model, given)
        known: dict[int, Latency] = {}

        def holds(number: int) -> bool:
            slim = build(order[:number]).apply(anatomy.model, verify=False)
            careful = replace(bench, rounds=_CAREFUL * bench.rounds)
            known[number] = careful.measure({_WHOLE: whole, _SLIM: bench.ready(slim, given)})
            advance(f"{budget}: {number} blocks gone, {known[number].ratio(_SLIM, _WHOLE)}")
            found = known[number]
            if goal is None:
                return found[_SLIM].median_ms <= (budget.amount or 0.0)
            return number == 0 if goal >= 1 else found.ratio(_SLIM, _WHOLE).median <= goal

        number = _fewest(guess, len(order), holds)
    if number is None:
        raise _out_of_reach(budget, len(order), known[len(order)])
    plan = build(order[:number])
    return replace(plan, made_by={**plan.made_by, **_told(budget, known, number),
                                  "predicted": table.predict(order[:number]),
                                  "table_error": table.error})  # fmt: skip


def _fewest(guess: int, most: int, holds: Callable[[int], bool]) -> int | None:
    """Find the fewest blocks that do, beginning at a good guess; None if not all of them do."""
    if holds(guess):
        while guess > 0 and holds(guess - 1):
            guess -= 1
        return guess
    for number in range(guess + 1, most + 1):
        if holds(number):
            return number
    return None


def _told(budget: Budget, known: dict[int, Latency], number: int) -> dict[str, Any]:
    latency = known[number]
    ratio = latency.ratio(_SLIM, _WHOLE)
    return {
        "budget": str(budget), "limit": budget.limit(latency[_WHOLE].median_ms),
        "reached": latency[_SLIM].median_ms, "whole": latency[_WHOLE].median_ms,
        "ratio": ratio.median, "interval": [ratio.low, ratio.high],
        "conditions": latency.conditions, "measured_plans": len(known), "met": True,
    }  # fmt: skip


def _out_of_reach(budget: Budget, number: int, latency: Latency) -> BudgetError:
    ratio = latency.ratio(_SLIM, _WHOLE)
    proposed = (
        f"latency={latency[_SLIM].median_ms * 1.03:.3g}ms" if budget.kept is None
        else f"latency={min(1.0, ratio.high * 1.01):.0%}"
    )  # fmt: skip
    message = (
        f"{budget} can't be met by removing blocks: without all {number} that may go the model "
        f"takes {latency[_SLIM]}, {ratio} of the whole ({latency.conditions}). Ask for "
        f"{proposed}, or cut channels too"
    )
    return BudgetError(message, minimum=ratio.median)
