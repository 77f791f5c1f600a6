"""Pruning bit by bit while a model trains: what is gone is held at zero, and cut at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.rows import Combine
from tonsor.criteria.score import Scores
from tonsor.criteria.stream import Loss
from tonsor.errors import SelectionError
from tonsor.methods.checks import (
    check_about,
    check_live,
    check_maskable,
    check_same,
    check_trained,
)
from tonsor.methods.course import Round, course_of, gone, signed
from tonsor.methods.masks import Masks
from tonsor.methods.scoring import RoundScores
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.select.rank import Rank
from tonsor.select.schedule import Schedule, parse_schedule
from tonsor.train.method import Method


class Gradual(Method):
    """Removes pieces round by round while the model trains, until the budget is met.

    >>> import torch
    >>> from tonsor.anatomy import inspect
    >>> net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> method = Gradual(
    ...     net, inspect(net, torch.randn(2, 8)), by="taylor_weight", budget="pieces=50%",
    ...     schedule="iterative:4/10",
    ... )
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> for step in range(50):
    ...     net(torch.randn(16, 8)).square().mean().backward()
    ...     method.before_step(step)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     method.after_step(step)
    >>> [done.left for done in method.history]
    [28, 24, 20, 16]
    >>> method.finish().apply(net)[0].out_features
    16

    A criterion that needs the gradients of weights takes them from training, averaged since the
    round before; one that needs other data is shown `batches`, at most `at_most` of them, in each
    round. `one-shot` shows `batches` to both, and without them takes the gradients of the first
    minibatch. The other options are those of `plan`; what `ratios` fixes goes in the first round,
    and so is decided which groups `skew` leaves whole. A LayerNorm or a GroupNorm along what is
    gone still counts the zeros while it trains.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        by: str | Scores = "l2",
        budget: str | Budget | None = None,
        schedule: str | Schedule,
        batches: Iterable[Any] | None = None,
        at_most: int | None = 8,
        loss: Loss | None = None,
        combine: Combine = "mean",
        seed: int = 0,
        rank: Rank = "global",
        keep: Iterable[Named] = (),
        ratios: Mapping[str, float] | None = None,
        round_to: int = 1,
        floor: int | float = 0.1,
        skew: float | None = None,
    ) -> None:
        self.schedule = parse_schedule(schedule)
        if self.schedule.kind == "soft":
            message = f"'{self.schedule}' lets pieces come back, which is done by Soft, not Gradual"
            raise SelectionError(message)
        check_same(model, anatomy)
        check_maskable(anatomy.model)
        self._scores = RoundScores(
            anatomy, by, smoothing=self.schedule.smoothing, combine=combine, batches=batches,
            at_most=at_most, loss=loss, seed=seed,
            from_training=not (self.schedule.at_once and batches is not None),
        )  # fmt: skip
        self._first = self._course = course_of(
            anatomy, budget, self.schedule, keep, skew,
            rank=rank, ratios=ratios, round_to=round_to, floor=floor, seed=seed,
        )  # fmt: skip
        check_trained(self._scores, self._course.free)
        self._empty = replace(self._course.sample(self._scores.unscored), keep={}, made_by={})
        self.plan: Plan | None = None
        self.over = False
        self._history: list[Round] = []
        self._masks: Masks | None = None
        self._looked = False

    @property
    def history(self) -> tuple[Round, ...]:
        """What each round has come to."""
        return tuple(self._history)

    def before_step(self, step: int) -> None:
        """Look at the gradients, and keep those of what is gone from the optimizer."""
        if not self._looked:
            check_live(self._course.anatomy)
            self._looked = True
        if not self.over:
            self._scores.see()
            if self.schedule.at_once:
                self._round(step)
        if (masks := self._held()) is not None:
            masks.gradients_()

    def after_step(self, step: int) -> None:
        """Keep at zero what is gone, and let more go where a round is due."""
        if (masks := self._held()) is not None:
            masks.weights_()
        if not self.over and self.schedule.due(step):
            self._round(step)

    def finish(self) -> Plan:
        """Return the plan that meets the budget; what is left to go of it is cut at once."""
        notes: list[str] = []
        decided = self.plan
        if decided is None or not self.over:
            scores = self._scores.look()
            course = self._course if decided is not None else self._course.holding(scores)
            before, decided = gone(decided), course.plan(scores, decided)
            notes.append(
                f"training ended after {len(self._history)} rounds of '{self.schedule}', before "
                f"the budget was met; {gone(decided) - before} pieces are cut at once"
            )
        return signed(decided, self.schedule, len(self._history), notes)

    def state_dict(self) -> dict[str, Any]:
        """Return what is gone, the scores so far, and what is being gathered."""
        return {
            "about": self._about(),
            "keep": None if self.plan is None else {n: list(k) for n, k in self.plan.keep.items()},
            "made_by": {} if self.plan is None else dict(self.plan.made_by),
            "whole": list(self._course.keep[len(self._first.keep) :]),
            "over": self.over,
            "history": [asdict(r) for r in self._history],
            "scores": self._scores.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the model is masked as it was then."""
        check_about(state["about"], self._about())
        kept = state["keep"]
        self.plan, self._masks = None, None
        self._course = self._first
        if kept is not None:
            keep = {name: tuple(indices) for name, indices in kept.items()}
            self.plan = replace(self._empty, keep=keep, made_by=state["made_by"])
            self._course = self._first.keeping(state["whole"])
        self.over = state["over"]
        self._history = [Round(**r) for r in state["history"]]
        self._scores.load_state_dict(state["scores"])
        if (masks := self._held()) is not None:
            masks.weights_()  # an average of weights has not reached zero

    def _round(self, step: int) -> None:
        scores, number = self._scores.turn(), len(self._history) + 1
        if number == 1:
            self._course = self._course.holding(scores)
        before = None if self.plan is None else self.plan.keep
        self.plan, self.over = self._course.next_plan(scores, number, self.plan)
        if self.plan.keep != before:
            check_live(self._course.anatomy)
            self._masks = Masks(self._course.anatomy, self.plan)
            self._masks.weights_()
        self._history.append(self._course.told(self.plan, number, step))

    def _held(self) -> Masks | None:
        """The masks of what is gone, made where the model is by now."""
        if self._masks is None and self.plan is not None:
            self._masks = Masks(self._course.anatomy, self.plan)
        return self._masks

    def _about(self) -> dict[str, str]:
        return self._first.about | {"by": self._scores.name}
