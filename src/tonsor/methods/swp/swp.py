"""SWP: train a filter skeleton, and cut the stripes whose numbers have become small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError, TrainError
from tonsor.methods.checks import check_live, check_same
from tonsor.methods.swp.course import (
    Moment,
    StripeCourse,
    check_alpha,
    check_begun,
    check_trains,
)  # fmt: skip
from tonsor.methods.swp.skeleton import Start, insert, merge, skeleton_of
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.names import Named
from tonsor.train.method import Method


class FilterSkeleton(Method):
    """Learns the shape of every filter: which of its stripes are of use (Meng et al., 2020).

    Each convolution gets a skeleton, a number for each stripe, by which it is multiplied and which
    trains like any parameter. It starts as ones, for training from the beginning; a network that
    is trained already has its own idea of which stripes matter, and with `start="norms"` the
    numbers are the norms of its stripes, over the mean of the layer, and its weights are divided
    by them. `alpha` is the weight of the sum of their sizes in the loss. Before each step the
    numbers not above `threshold` and their gradients are set to zero; a filter whose numbers are
    all zero has its BatchNorm silenced. When training is over the weights are multiplied by their
    skeletons, which changes nothing, and what is zero is cut.

    >>> import torch
    >>> from tonsor.anatomy import inspect
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> method = FilterSkeleton(net, inspect(net, torch.randn(2, 3, 8, 8)), budget="params=40%",
    ...                         ramp=20, every=5)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> for step in range(30):
    ...     net(torch.randn(16, 3, 8, 8)).square().mean().backward()
    ...     method.before_step(step)
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     method.after_step(step)
    >>> slim = method.finish().apply(net)
    >>> sum(p.numel() for p in slim.parameters()) <= 0.4 * sum(p.numel() for p in net.parameters())
    True

    With a `budget`, such as `"macs=50%"`, the threshold is found instead of given: every `every`
    steps the lowest numbers go, so that the cost of what is left comes down, quickly at first, and
    is within the budget after `ramp` steps; what has gone stays gone. With a `threshold`, numbers
    that momentum lifts above it in one step come back, as in the authors' code; `revival=False`
    closes that door. `skeleton_only=True` keeps the weights of these convolutions as they are and
    trains their skeletons alone. `keep` lists layers that get no skeleton, `floor` is the least
    that stays of a layer, as a number of stripes or, below 1, as a share. `after` is an earlier
    plan of the same model.

    With `stripe_group`, so many consecutive filters share their numbers, and so the stripes that
    stay: a skeleton has a row for each group, of which the last may be of fewer filters. It is the
    convolution as it is now that is divided: filters that `after` has removed are not counted, and
    those that die later go by whole groups. A shared number gets the sum of the gradients of its
    filters, and its part in the penalty counts once for each of them, so that `alpha` means the
    same. It starts as the root mean square of their norms with `start="norms"`.

    What the authors leave slightly off zero between two steps is zero here at once, so that a model
    judged at any time is the one that is cut. The optimizer has to be made after this, as it is to
    train the skeletons too.
    """

    def __init__(
        self,
        model: nn.Module,
        anatomy: Anatomy,
        *,
        alpha: float = 1e-5,
        threshold: float = 0.01,
        start: Start = "ones",
        budget: str | Budget | None = None,
        ramp: int = 1000,
        every: int = 50,
        revival: bool = True,
        skeleton_only: bool = False,
        keep: Iterable[Named] = (),
        floor: float = 1,
        after: Plan | None = None,
        stripe_group: int = 1,
    ) -> None:
        check_same(model, anatomy)
        _check_bare(anatomy)
        check_live(anatomy)
        check_alpha(alpha)
        if start not in get_args(Start):
            message = f"start must be one of {', '.join(get_args(Start))}, got {start!r}"
            raise SelectionError(message)
        self.alpha, self.skeleton_only, self.start = float(alpha), skeleton_only, start
        self.course = StripeCourse(
            anatomy, threshold=threshold, budget=budget, ramp=ramp, every=every, revival=revival,
            keep=keep, floor=floor, after=after, stripe_group=stripe_group, skeletons=True,
        )  # fmt: skip
        if start == "ones" and budget is None and threshold >= 1:
            message = (
                f"threshold={threshold!r} would take all at the first step, for the skeletons "
                "start as ones; say less than 1, or start='norms'"
            )
            raise SelectionError(message)
        self._weights = [anatomy.parameters[x.weight] for x in self.course.layers]
        if not skeleton_only:
            hint = "; skeleton_only=True trains skeletons of frozen weights"
            check_trains(anatomy, self.course.layers, hint)
        self._convs = [anatomy.model.get_submodule(x.name) for x in self.course.layers]
        self._skeletons = [
            insert(conv, start, None if shared.alone else shared)
            for conv, shared in zip(self._convs, self.course.together, strict=True)
        ]
        self._frozen = [w for w in self._weights if skeleton_only and w.requires_grad]
        for weight in self._frozen:
            weight.requires_grad_(False)
        self._others = [p for p in anatomy.model.parameters() if p.requires_grad]
        self._versions: tuple[list[int], list[int]] | None = None
        self._looked = self._finished = False
        self._zero()

    @property
    def history(self) -> tuple[Moment, ...]:
        """What has come of it, now and then."""
        return tuple(self.course.history)

    @property
    def skeletons(self) -> list[nn.Parameter]:
        """What trains beside the parameters that the model had: a number for each stripe.

        Filters of a group have theirs in common.
        """
        return self._numbers

    @property
    def _numbers(self) -> list[nn.Parameter]:
        return [s.skeleton for s in self._skeletons]

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Add the penalty to the gradients, and take away those of what is gone."""
        self._check_open()
        numbers = self._numbers
        pairs = zip(numbers, self.course.together, strict=True)
        alive = [(p.grad, p, shared) for p, shared in pairs if p.grad is not None]
        if alive:
            signs = list(torch._foreach_sign([p for _, p, _ in alive]))  # pyright: ignore[reportPrivateImportUsage]
            if self.course.group > 1:  # a number pays for each filter that it stands for
                torch._foreach_mul_(signs, [shared.counts(p) for _, p, shared in alive])  # pyright: ignore[reportPrivateImportUsage]
            torch._foreach_add_([g for g, _, _ in alive], signs, alpha=self.alpha)  # pyright: ignore[reportPrivateImportUsage]
        self.course.hold_gradients_(numbers)
        if alive and not self._looked:
            self._versions = self._counted()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Set to zero what is not above the threshold now, and what is silent with it."""
        self._check_open()
        self._look()
        self.course.turn(self._sizes(), step)
        self._zero()

    def _sizes(self) -> list[Tensor]:
        return list(torch._foreach_abs([p.detach() for p in self._numbers]))  # pyright: ignore[reportPrivateImportUsage]

    def _zero(self) -> None:
        self.course.hold_(self._numbers)

    def _counted(self) -> tuple[list[int], list[int]]:
        """Count how often the skeletons, and whatever else trains, have been changed in place."""
        mine = {id(p) for p in self._numbers}
        others = [p._version for p in self._others if id(p) not in mine]
        return [p._version for p in self._numbers], others

    def _look(self) -> None:
        """Raise if the first step that changes anything does not change the skeletons."""
        if self._looked or self._versions is None:
            return
        before, now = self._versions, self._counted()
        if now[0] == before[0] and now[1] != before[1]:
            message = (
                "the optimizer does not train the skeletons: it was made before FilterSkeleton "
                "was, or has only some parameters. Make it afterwards, or add them by "
                "optimizer.add_param_group({'params': method.skeletons})"
            )
            raise TrainError(message)
        self._looked = now[0] != before[0]

    def _check_open(self) -> None:
        if self._finished:
            message = (
                "this FilterSkeleton is finished: its skeletons are multiplied in and taken off. "
                "Make a new one to go on training stripes"
            )
            raise TrainError(message)

    @torch.no_grad()
    def finish(self) -> Plan:
        """Multiply the weights by their skeletons, take these off, and return what is to be cut.

        The model computes the same as before, and has the parameters that it had at first.
        """
        self._check_open()
        notes = self.course.finish(self._sizes())
        self._zero()
        self.release()
        made = {
            "method": "swp", "alpha": self.alpha, "start": self.start,
            "skeleton_only": self.skeleton_only,
        }  # fmt: skip
        return self.course.plan(made, notes)

    def release(self) -> None:
        """Multiply the weights by their skeletons and take these off, with nothing decided.

        This is how to give up: the model is as it was made, with the weights that it has by now.
        """
        if not self._finished:
            self._finished = True
            for conv in self._convs:
                merge(conv)
            for weight in self._frozen:
                weight.requires_grad_(True)

    def state_dict(self) -> dict[str, Any]:
        """Return what is gone, and the threshold by which it went."""
        return {"about": self._about(), **self.course.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the model is masked as it was then."""
        check_begun(state["about"], self._about())
        self.course.load_state_dict(state)
        self._zero()  # an average of weights has not reached zero

    def _about(self) -> dict[str, str]:
        return self.course.about() | {
            "alpha": str(self.alpha), "skeleton_only": str(self.skeleton_only),
            "start": self.start,
        }  # fmt: skip


def _check_bare(anatomy: Anatomy) -> None:
    """Refuse a model that has skeletons already."""
    for name, module in anatomy.model.named_modules():
        if skeleton_of(module) is not None:
            message = (
                f"'{name}' has a skeleton already, of another FilterSkeleton on this model; call "
                "finish() or release() on that one first"
            )
            raise SelectionError(message)
