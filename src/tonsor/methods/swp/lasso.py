"""Group lasso on stripes: what the filter skeleton is compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import TrainError
from tonsor.methods.checks import check_live, check_maskable, check_same
from tonsor.methods.swp.course import (
    Moment,
    StripeCourse,
    check_alpha,
    check_begun,
    check_trains,
)  # fmt: skip
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.train.method import Method

_LEAST = 1e-12  # the norm of a stripe that is zero has no gradient; it is taken for zero


class StripeLasso(Method):
    """Pulls the norm of every stripe towards zero, and cuts those that come near it.

    The loss gets `alpha` times the sum of the Euclidean norms of all stripes (Wen et al., 2016).
    Stripes whose norm is not above `threshold` are set to zero with their gradients. The other
    options are those of `FilterSkeleton`, whose comparator it is. With `relative`, norms are taken
    over the mean norm that their layer had at first, so that layers of small weights do not go
    before others; the penalty is the same.

    With `stripe_group`, so many consecutive filters keep the same stripes: the norm is that of the
    group's stripes at one position, over the square root of how many they are, and the penalty is
    `alpha` times the sum of these norms times that root. So `alpha` and `threshold` mean the same
    for every size of a group.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        alpha: float = 1e-4,
        threshold: float = 0.01,
        relative: bool = False,
        budget: str | Budget | None = None,
        ramp: int = 1000,
        every: int = 50,
        revival: bool = True,
        keep: Iterable[Named] = (),
        floor: float = 1,
        after: Plan | None = None,
        stripe_group: int = 1,
    ) -> None:
        check_same(model, anatomy)
        check_maskable(anatomy.model)
        check_alpha(alpha)
        self.alpha = float(alpha)
        self.course = StripeCourse(
            anatomy, threshold=threshold, budget=budget, ramp=ramp, every=every, revival=revival,
            keep=keep, floor=floor, after=after, stripe_group=stripe_group, skeletons=False,
        )  # fmt: skip
        self._weights = [anatomy.parameters[x.weight] for x in self.course.layers]
        self.relative = relative
        means = [n.mean() for n in self._norms()]
        self._means = [float(m) if relative and m > 0 else 1.0 for m in means]
        check_trains(anatomy, self.course.layers)
        self._looked = self._finished = False
        self._zero()

    @property
    def history(self) -> tuple[Moment, ...]:
        """What has come of it, now and then."""
        return tuple(self.course.history)

    def _norms(self) -> list[Tensor]:
        return [
            shared.norms(w) for w, shared in zip(self._weights, self.course.together, strict=True)
        ]

    def _values(self) -> list[Tensor]:
        return [n / mean for n, mean in zip(self._norms(), self._means, strict=True)]

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Add the penalty to the gradients, and take away those of what is gone."""
        self._check_open()
        if not self._looked:
            check_live(self.course.frame.anatomy)
            self._looked = True
        norms = zip(self.course.together, self._norms(), strict=True)
        for weight, (shared, norm) in zip(self._weights, norms, strict=True):
            if weight.grad is not None:
                pull = weight.detach() / shared.spread(norm).clamp_min(_LEAST).unsqueeze(1)
                weight.grad.add_(pull, alpha=self.alpha)
        self.course.hold_gradients_(self._weights)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Set to zero what is not above the threshold now, and what is silent with it."""
        self._check_open()
        self.course.turn(self._values(), step)
        self._zero()

    def _zero(self) -> None:
        self.course.hold_(self._weights)

    def _check_open(self) -> None:
        if self._finished:
            message = "this StripeLasso is finished; make a new one to go on training stripes"
            raise TrainError(message)

    @torch.no_grad()
    def finish(self) -> Plan:
        """Return what is to be cut, which is zero already."""
        self._check_open()
        notes = self.course.finish(self._values())
        self._zero()
        self._finished = True
        return self.course.plan(
            {"method": "lasso", "alpha": self.alpha, "relative": self.relative}, notes
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what is gone, and the threshold by which it went."""
        return {"about": self._about(), "means": self._means, **self.course.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the model is masked as it was then."""
        check_begun(state["about"], self._about())
        self._means = list(state["means"])
        self.course.load_state_dict(state)
        self._zero()

    def _about(self) -> dict[str, str]:
        return self.course.about() | {"alpha": str(self.alpha), "relative": str(self.relative)}
