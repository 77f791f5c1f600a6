"""SWP: train a filter skeleton, and cut the stripes whose numbers have become small."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.methods.checks import check_about, check_same
from tonsor.methods.swp.course import Moment, StripeCourse
from tonsor.methods.swp.skeleton import Skeleton, Start, insert, merge, skeleton_of
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
    by them. `alpha` is the weight of the sum of their sizes in the
    loss. Before each step the numbers not above `threshold` and their gradients are set to zero;
    a filter whose numbers are all zero has its BatchNorm silenced. When training is over the
    weights are multiplied by their skeletons, which changes nothing, and what is zero is cut.

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
    closes that door. `skeleton_only=True`
    keeps the weights of these convolutions as they are and trains their skeletons alone. `keep`
    lists layers that get no skeleton, `floor` is the least that stays of a layer, as a number of
    stripes or, below 1, as a share. `after` is an earlier plan of the same model.

    What the authors leave slightly off zero between two steps is zero here at once, so that a model
    judged at any time is the one that is cut.
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
    ) -> None:
        check_same(model, anatomy)
        if not alpha >= 0:
            message = f"alpha is the weight of the penalty, at least 0, got {alpha!r}"
            raise SelectionError(message)
        if start not in get_args(Start):
            message = f"start must be one of {', '.join(get_args(Start))}, got {start!r}"
            raise SelectionError(message)
        self.alpha, self.skeleton_only, self.start = float(alpha), skeleton_only, start
        self.course = StripeCourse(
            anatomy, threshold=threshold, budget=budget, ramp=ramp, every=every, revival=revival,
            keep=keep, floor=floor, after=after,
        )  # fmt: skip
        self._convs = [anatomy.model.get_submodule(x.name) for x in self.course.layers]
        self._frozen: list[nn.Parameter] = []
        self._skeletons = [_inserted(conv, start) for conv in self._convs]
        if skeleton_only:
            for conv in self._convs:
                weight: Any = conv.parametrizations.weight.original  # type: ignore[union-attr]
                if weight.requires_grad:
                    self._frozen.append(weight.requires_grad_(False))
        if after is not None:
            with torch.no_grad():
                self._zero()

    @property
    def history(self) -> tuple[Moment, ...]:
        """What has come of it, now and then."""
        return tuple(self.course.history)

    @property
    def _numbers(self) -> list[nn.Parameter]:
        return [s.skeleton for s in self._skeletons]

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Add the penalty to the gradients, and take away those of what is gone."""
        found = [(p, p.grad) for p in self._numbers]
        alive = [(p, g) for p, g in found if g is not None]
        torch._foreach_add_([g for _, g in alive], _signs(alive), alpha=self.alpha)  # pyright: ignore[reportPrivateImportUsage]
        self._hold([p.grad for p in self._numbers])
        self.course.silence_gradients_()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Set to zero what is not above the threshold now, and what is silent with it."""
        self.course.turn([p.abs() for p in self._numbers], step)
        self._zero()

    def _zero(self) -> None:
        self._hold(list(self._numbers))
        self.course.silence_()

    def _hold(self, tensors: list[Tensor | None]) -> None:
        pairs = [(t, m) for t, m in zip(tensors, self.course.tensors, strict=True) if t is not None]
        if pairs:
            torch._foreach_mul_([t for t, _ in pairs], [m.to(t) for t, m in pairs])  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def finish(self) -> Plan:
        """Multiply the weights by their skeletons, take these off, and return what is to be cut.

        The model computes the same as before, and has the parameters that it had at first.
        """
        notes = self.course.finish([p.abs() for p in self._numbers])
        self._zero()
        for conv in self._convs:
            merge(conv)
        for weight in self._frozen:
            weight.requires_grad_(True)
        made = {
            "method": "swp", "alpha": self.alpha, "start": self.start,
            "skeleton_only": self.skeleton_only,
        }  # fmt: skip
        return self.course.plan(made, notes)

    def state_dict(self) -> dict[str, Any]:
        """Return what is gone, and the threshold by which it went."""
        return {"about": self._about(), **self.course.state_dict()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; the model is masked as it was then."""
        check_about(state["about"], self._about())
        self.course.load_state_dict(state)
        self._zero()  # an average of weights has not reached zero

    def _about(self) -> dict[str, str]:
        return self.course.about() | {
            "alpha": str(self.alpha), "skeleton_only": str(self.skeleton_only),
            "start": self.start,
        }  # fmt: skip


def _inserted(conv: nn.Module, start: Start) -> Skeleton:
    if skeleton_of(conv) is not None:
        message = (
            f"a {type(conv).__name__} has a skeleton already, of another FilterSkeleton on this "
            "model; finish that one first"
        )
        raise SelectionError(message)
    return insert(conv, start)


def _signs(pairs: list[tuple[nn.Parameter, Tensor]]) -> list[Tensor]:
    return [p.detach().sign() for p, _ in pairs]
