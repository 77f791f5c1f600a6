"""Soft pruning: what is low is set to zero now and then, and may come back until the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
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
from tonsor.methods.course import Round, course_of, signed
from tonsor.methods.masks import zero_makers_
from tonsor.methods.scoring import RoundScores
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.select.rank import Rank
from tonsor.select.schedule import Schedule, parse_schedule
from tonsor.train.method import Method


class Soft(Method):
    """Sets the filters outside of the budget to zero every so often, each time chosen anew.

    Only the weights that make a piece are set to zero, and only at that moment: they go on
    learning, and what has grown by the next time stays (SFP, He et al., 2018; with the criterion
    `geometric_median` it is FPGM, He et al., 2019). What is chosen after training is cut. The
    options are those of `Gradual`; papers look at filters alone, which is `combine="producer"`.

    The scale and shift of a norm stay as they are, without which nothing could come back; the cut
    takes them too, so take the statistics of BatchNorm anew after it.
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
        if self.schedule.kind != "soft":
            message = f"'{self.schedule}' removes for good, which is done by Gradual, not Soft"
            raise SelectionError(message)
        check_same(model, anatomy)
        check_maskable(anatomy.model)
        self._scores = RoundScores(
            anatomy, by, smoothing=self.schedule.smoothing, combine=combine, batches=batches,
            at_most=at_most, loss=loss, seed=seed,
        )  # fmt: skip
        self._first = self._course = course_of(
            anatomy, budget, self.schedule, keep, skew,
            rank=rank, ratios=ratios, round_to=round_to, floor=floor, seed=seed,
        )  # fmt: skip
        check_trained(self._scores, self._course.free)
        self._course.sample(self._scores.unscored)
        self._history: list[Round] = []

    @property
    def history(self) -> tuple[Round, ...]:
        """What each round has come to; none of it is gone for good."""
        return tuple(self._history)

    def before_step(self, step: int) -> None:
        """Look at the gradients."""
        self._scores.see()

    def after_step(self, step: int) -> None:
        """Choose anew, and set to zero, where a round is due."""
        if not self.schedule.due(step):
            return
        check_live(self._course.anatomy)
        scores = self._scores.turn()
        self._course = self._course.holding(scores)
        decided = self._course.plan(scores)
        zero_makers_(self._course.anatomy, decided.keep)
        self._history.append(self._course.told(decided, len(self._history) + 1, step))

    def finish(self) -> Plan:
        """Choose once more, and return the plan of it."""
        scores = self._scores.look()
        decided = self._course.holding(scores).plan(scores)
        return signed(decided, self.schedule, len(self._history), ())

    def state_dict(self) -> dict[str, Any]:
        """Return the scores so far, and what is being gathered."""
        return {
            "about": self._about(),
            "whole": list(self._course.keep[len(self._first.keep) :]),
            "history": [asdict(r) for r in self._history],
            "scores": self._scores.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        check_about(state["about"], self._about())
        self._history = [Round(**r) for r in state["history"]]
        self._course = self._first.keeping(state["whole"]) if self._history else self._first
        self._scores.load_state_dict(state["scores"])

    def _about(self) -> dict[str, str]:
        return self._first.about | {"by": self._scores.name}
