"""Meet a latency: cut, measure, correct, until the time that was measured holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.cost.engines.ready import Ready
from tonsor.cost.latency import Latency
from tonsor.cost.progress import Advance, bar
from tonsor.errors import BudgetError
from tonsor.graph.inputs import Inputs
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget
from tonsor.select.search import TRIES, search

Build: TypeAlias = Callable[[Budget], Plan]
"""From a budget that is counted, such as `macs=60%`, to the plan that meets it."""

WHOLE, SLIM = "whole", "slim"
CAREFUL = 2  # a careful measurement has so many times the rounds of a quick one
PATIENCE = 4  # so many times the rounds at most, until the ratio is known well enough
WITHIN = 0.03  # a ratio that is known no better than this leads a search astray
_READY = 2  # so many slim models are held, for engines that take long to make one ready


def plan_timed(
    anatomy: Anatomy,
    budget: str | Budget,
    *,
    bench: Bench,
    build: Build,
    through: str = "macs",
    quiet: bool = False,
) -> Plan:
    """Find the largest plan whose measured latency meets the budget.

    `build` makes a plan for any share of what is counted, `through`; the share is searched for
    by measuring slim and whole model in turns. The plan says what was measured, and how.
    """
    budget = as_budget(budget)
    inputs = bench.inputs(anatomy.inputs)
    with bar(f"meeting {budget}", TRIES + 2, quiet=quiet) as advance:
        whole = bench.ready(anatomy.model, inputs)
        trials = _Trials(anatomy, budget, bench, build, through, inputs, whole, advance)
        return _found(trials)


def _found(trials: _Trials) -> Plan:
    budget = trials.budget
    start = trials.plan(1.0)  # an earlier plan may have taken something already
    made = start.made_by
    plain = not _removes(start) and trials.goal < 1 and budget.amount is None
    cost = 1.0 if plain else trials.cost(start, careful=True)
    if cost <= trials.goal:
        return trials.told(start)
    found = search(
        lambda kept, careful: trials.cost(trials.plan(kept), careful),
        trials.goal, least=made["least"] / made["whole"], most=made["reached"] / made["whole"],
        cost_of_most=cost,
    )  # fmt: skip
    least = trials.plan(found.kept)
    if found.met:
        return trials.told(least)
    latency = trials.known[_key(least)]
    ratio = latency.ratio(SLIM, WHOLE)
    if budget.kept is None:
        proposed = f"latency={latency[SLIM].median_ms * 1.03:.3g}ms"
    else:
        proposed = f"latency={min(1.0, ratio.high * 1.01):.0%}"
    message = (
        f"{budget} can't be met: the slimmest model, {trials.through}={found.kept:.1%}, takes "
        f"{latency[SLIM]}, {ratio} of the whole ({latency.conditions}). Ask for {proposed}; a "
        "smaller floor reaches further"
    )
    raise BudgetError(message, minimum=ratio.median)


@dataclass
class _Trials:
    """Plans that were measured, and how they did."""

    anatomy: Anatomy
    budget: Budget
    bench: Bench
    build: Build
    through: str
    inputs: Inputs
    whole: Ready
    advance: Advance
    known: dict[Any, Latency] = field(default_factory=dict[Any, Latency])
    ready: dict[Any, Ready] = field(default_factory=dict[Any, Ready])

    @property
    def goal(self) -> float:
        """The share of the whole model's time, or of the time allowed, that may be taken."""
        return 1.0 if self.budget.kept is None else self.budget.kept

    def plan(self, kept: float) -> Plan:
        """The plan that keeps such a share of what is counted."""
        return self.build(Budget(self.through, kept=kept))

    def cost(self, plan: Plan, careful: bool) -> float:
        """Measure a plan in the unit of the goal; what was measured before is fresh if careful."""
        key = _key(plan)
        if careful or key not in self.known:
            rounds = self.bench.rounds * (CAREFUL if careful else 1)
            bench = replace(
                self.bench, rounds=rounds, within=self.bench.within or WITHIN,
                at_most=min(self.bench.at_most, PATIENCE * rounds),
            )  # fmt: skip
            self.known[key] = bench.measure({WHOLE: self.whole, SLIM: self._slim(plan)})
            self.advance(f"{self.budget}: now at {self.known[key].ratio(SLIM, WHOLE)}")
        latency = self.known[key]
        if self.budget.amount is not None:
            allowed = self.budget.amount
            return latency[SLIM].median_ms / allowed if allowed else float("inf")
        return latency.ratio(SLIM, WHOLE).median if _removes(plan) else 1.0

    def _slim(self, plan: Plan) -> Ready:
        if not _removes(plan):
            return self.whole
        key = _key(plan)
        if key not in self.ready:
            slim = plan.apply(self.anatomy.model, verify=False)
            while len(self.ready) >= _READY:
                del self.ready[next(iter(self.ready))]
            self.ready[key] = self.bench.ready(slim, self.inputs)
        return self.ready[key]

    def told(self, plan: Plan) -> Plan:
        """Write into a plan what was measured of it.

        Of a fraction to keep, `reached` is the ratio times the time of the whole.
        """
        latency = self.known[_key(plan)]
        ratio, whole = latency.ratio(SLIM, WHOLE), latency[WHOLE].median_ms
        reached = latency[SLIM].median_ms if self.budget.kept is None else ratio.median * whole
        made = {k: v for k, v in plan.made_by.items() if k != "least"}
        share = plan.made_by["reached"] / plan.made_by["whole"]
        made |= {
            "budget": str(self.budget), "through": f"{self.through}={share:.4%}",
            "limit": self.budget.limit(whole), "reached": reached, "whole": whole,
            "ratio": ratio.median, "interval": [ratio.low, ratio.high],
            "conditions": latency.conditions, "measured_plans": len(self.known), "met": True,
        }  # fmt: skip
        return replace(plan, made_by=made)


def _removes(plan: Plan) -> bool:
    return bool(plan.keep or plan.drops)


def _key(plan: Plan) -> tuple[object, ...]:
    """What the time of a slim model depends on: how much of each group stays, and which blocks."""
    return (*sorted(plan.counts.items()), *sorted(d.name for d in plan.drops))
