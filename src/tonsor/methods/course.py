"""What a schedule works towards, and the plan of each round on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores, score
from tonsor.errors import BudgetError
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget, is_measured, is_speedup
from tonsor.select.make import plan
from tonsor.select.names import Named, as_names, touching
from tonsor.select.schedule import Schedule
from tonsor.select.skew import skewed


@dataclass(frozen=True, slots=True)
class Round:
    """What a round has come to: after which step, how many pieces are gone, what is left."""

    number: int
    step: int
    gone: int
    left: int
    macs: int
    params: int


@dataclass(frozen=True)
class Course:
    """What the plans of all rounds have in common: the model, the budget, and options of `plan`."""

    anatomy: Anatomy
    budget: Budget | None
    schedule: Schedule
    keep: tuple[str, ...] = ()
    skew: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan(self, scores: Scores, after: Plan | None = None, budget: Budget | None = None) -> Plan:
        """Plan for the budget, or for one on the way to it."""
        return plan(
            self.anatomy, budget or self.budget, by=scores, keep=self.keep, after=after,
            quiet=True, **self.options,
        )  # fmt: skip

    def holding(self, scores: Scores) -> Course:
        """Return the course with the groups left whole that these scores say to skip, for good.

        They are not asked again: what has lost pieces has other scores for that alone.
        """
        if self.skew is None:
            return self
        return self.keeping(skewed(scores, self.skew))

    def keeping(self, names: Iterable[str]) -> Course:
        """Return the course with these groups left whole, and no more to skip."""
        return replace(self, keep=(*self.keep, *names), skew=None)

    def sample(self, unscored: Mapping[str, str]) -> Plan:
        """Plan by chance, to find out whether the budget can be met at all."""
        drawn = score(self.anatomy, "random")
        values = {n: v for n, v in drawn.values.items() if n not in unscored}
        return self.plan(replace(drawn, values=values, unscored=dict(unscored)))

    def next_plan(self, scores: Scores, number: int, before: Plan | None) -> tuple[Plan, bool]:
        """Return the plan of a round, counted from 1, and whether it is the last.

        Everything that `before` removes stays removed.
        """
        schedule, whole = self.schedule, self.plan(scores, before)
        if self.budget is None or schedule.at_once:
            return whole, True
        if schedule.kind == "ramp":
            last = number >= schedule.rounds
            return (whole if last else self.plan(scores, before, self.toward(number))), last
        allowed = schedule.leaves(self.left(before))
        if self.left(whole) >= allowed:
            return whole, True
        part = self.plan(scores, before, Budget("pieces", amount=allowed))
        if self.plan(scores, part).keep == part.keep:
            return whole, True  # so few pieces do as well, but end further below the budget
        return part, False

    def toward(self, number: int) -> Budget:
        """Return what a ramp aims for in a round."""
        assert self.budget is not None
        target, whole = self.budget.target, self.whole
        limit = self.schedule.aims(number, whole, self.budget.limit(whole))
        return Budget(target, amount=whole / limit if is_speedup(target) else limit)

    @cached_property
    def whole(self) -> float:
        """The cost of the whole model, as the budget counts it."""
        assert self.budget is not None
        target, cost = self.budget.target, self.anatomy.cost
        if target == "pieces":
            return self.pieces
        if target in ("macs", "params"):
            return cost.macs() if target == "macs" else cost.params()
        return 1.0 if is_speedup(target) else cost.total(target)

    @cached_property
    def pieces(self) -> int:
        """How many pieces the whole model has, as a budget counts them."""
        drawn = score(self.anatomy, "random")
        options = {**self.options, "ratios": None}
        whole = replace(self, options=options).plan(drawn, budget=Budget("pieces", kept=1.0))
        return round(whole.made_by["reached"])

    def left(self, decided: Plan | None) -> int:
        """How many pieces a plan leaves."""
        return self.pieces - gone(decided)

    def told(self, decided: Plan, number: int, step: int) -> Round:
        """Say what a round has come to."""
        cost, counts = self.anatomy.cost, decided.counts
        return Round(
            number, step, gone(decided), self.left(decided), cost.macs(counts), cost.params(counts)
        )

    @property
    def about(self) -> dict[str, str]:
        """What the plans depend on, as text."""
        options = {name: repr(value) for name, value in self.options.items()}
        return {
            "schedule": str(self.schedule), "budget": str(self.budget), "skew": repr(self.skew),
            "keep": ", ".join(self.keep), **options,
        }  # fmt: skip

    @property
    def free(self) -> set[str]:
        """The groups that may lose pieces."""
        return {g.name for g in self.anatomy.prunable} - touching(self.anatomy, self.keep)


def course_of(
    anatomy: Anatomy,
    budget: str | Budget | None,
    schedule: Schedule,
    keep: Iterable[Named],
    skew: float | None,
    **options: Any,
) -> Course:
    """Return the course for what a user asks for."""
    target = None if budget is None else as_budget(budget)
    if target is not None and is_measured(target.target):
        message = (
            f"{target} can't be followed while training, for each round would have to be measured. "
            "Cut to it one-shot and train on, or give what is counted, such as macs=50%"
        )
        raise BudgetError(message)
    names = tuple(as_names(anatomy, keep))
    return Course(anatomy, target, schedule, names, skew, options)


def gone(decided: Plan | None) -> int:
    """How many pieces a plan removes."""
    if decided is None:
        return 0
    sizes = decided.sizes
    return sum(sizes[name] - len(kept) for name, kept in decided.keep.items())


def signed(decided: Plan, schedule: Schedule, rounds: int, notes: Iterable[str]) -> Plan:
    """Return a plan that also says by which schedule it was made, and what is to be said of it."""
    made_by = dict(decided.made_by)
    said = [*made_by.get("notes", ()), *notes]
    made_by |= {"schedule": str(schedule), "rounds": rounds, **({"notes": said} if said else {})}
    return replace(decided, made_by=made_by)
