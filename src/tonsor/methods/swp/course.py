"""Which stripes are gone at each moment of a training, and what is silent with them.

Every stripe has a value: its number in the skeleton, or the norm of its weights. What is not above
the threshold is gone. The threshold is given, or it is found anew now and then so that the cost of
what is left comes down to a budget; what has gone by then stays gone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.rows import Array
from tonsor.errors import BudgetError, SelectionError
from tonsor.families.fibres import FibreLayer, no_layer_free
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask
from tonsor.methods.checks import check_about
from tonsor.methods.earlier import Earlier, digest
from tonsor.methods.silence import multiply_, silenced
from tonsor.methods.swp.together import Together
from tonsor.plans import Plan
from tonsor.select.budget import Budget, is_speedup
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.make import checked_floor, counted, keeping
from tonsor.select.fibres.sharing import checked_group
from tonsor.select.fibres.threshold import TOLERANCE, Chosen, above, within
from tonsor.select.names import Named


@dataclass(frozen=True, slots=True)
class Moment:
    """What has come of it after a step: the threshold, stripes, and what the model costs."""

    step: int
    threshold: float
    left: int
    macs: int
    params: int


class StripeCourse:
    """Decides which stripes are gone, for the methods that train with fewer and fewer of them.

    A branch that ends in nothing known to scale it is never emptied, as it could not be silenced.
    With `skeletons` that is what is held at zero, of each group of filters; else it is weights.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        *,
        threshold: float,
        budget: str | Budget | None,
        ramp: int,
        every: int,
        revival: bool,
        keep: Iterable[Named],
        floor: float,
        after: Plan | None,
        stripe_group: int,
        skeletons: bool,
    ) -> None:
        _check(threshold, ramp, every)
        self.group, self._skeletons = checked_group(stripe_group), skeletons
        layers = keeping(anatomy, find_stripes(anatomy), keep)
        if not layers.free:
            raise no_layer_free(layers)
        self.frame = Frame(anatomy, layers, after, silenced=True, group=self.group)
        self._earlier = Earlier.of(self.frame)
        self.layers: tuple[FibreLayer, ...] = tuple(
            x for x in layers.free if x.name in self.frame.start
        )
        self.together = [Together(self.frame.shared[x.name], x.kernel) for x in self.layers]
        self.threshold, self.revival, self.floor = threshold, revival, checked_floor(floor)
        self.ramp, self.every = ramp, every
        self.budget = None if budget is None else counted(budget)
        self.over, self.held = self.budget is None, 0
        self.history: list[Moment] = []
        self.masks: dict[str, FibreMask] = dict(self.frame.start)
        self.tensors: list[Tensor] = []
        self._silent: list[tuple[nn.Parameter, Tensor]] = []
        self._uneven = list(self._gone_before()) if skeletons and self.group > 1 else []
        self._above: Tensor | None = None
        if self.budget is not None:
            self._whole = self.frame.cost(self.frame.start, self.budget.target)
            self._limit = self.frame.limit(self.budget)
            ones = {x.name: np.ones(x.size) for x in self.layers}
            within(self.frame, ones, self.budget, self.floor)  # or it is out of reach
        self._settle(dict(self.frame.start))

    # ------------------------------------------------------------ deciding

    def due(self, step: int) -> bool:
        """Whether the threshold is to be found anew after this step."""
        return not self.over and ((step + 1) % self.every == 0 or step + 1 >= self.ramp)

    def turn(self, values: Sequence[Tensor], step: int) -> None:
        """Decide anew after a step, by the values of all stripes of each layer."""
        if self.due(step):
            self._find(values, step)
        elif self.budget is None and self._changed(values):
            self._take(above(self.frame, self._arrays(values), self.threshold, self.floor))
        if (step + 1) % self.every == 0:
            self.history.append(self._moment(step))

    def _changed(self, values: Sequence[Tensor]) -> bool:
        """Whether any stripe has fallen to the threshold or has risen above it."""
        now = torch.cat([v.detach().flatten() for v in values]) > self.threshold
        before, self._above = self._above, now
        return before is None or not torch.equal(now, before.to(now.device))

    def _find(self, values: Sequence[Tensor], step: int) -> None:
        done = min(1.0, (step + 1) / self.ramp)
        limit = self._limit + (self._whole - self._limit) * (1 - done) ** 3
        self._take(self._within(values, limit))
        self.over = done >= 1.0

    def _within(self, values: Sequence[Tensor], limit: float | None = None) -> Chosen:
        """Choose among the stripes that are left, by the threshold that leaves so much."""
        assert self.budget is not None
        mine = self._arrays(values)
        try:
            return within(self.frame, mine, self.budget, self.floor, least=0.0, limit=limit)
        except BudgetError:  # what each layer has to keep lies in filters that differ too much
            found = above(self.frame, mine, math.inf, self.floor)
            return replace(found, threshold=max(float(v.max()) for v in mine.values()))

    def _take(self, chosen: Chosen) -> None:
        self.threshold, self.held = chosen.threshold, chosen.held
        self._settle(chosen.masks)

    def _arrays(self, values: Sequence[Tensor]) -> dict[str, Array]:
        """Return the values as arrays, below all others for stripes that may not come back."""
        found: dict[str, Array] = {}
        for layer, value in zip(self.layers, values, strict=True):
            shared = self.frame.shared[layer.name]
            numbers = value.detach().double().cpu().numpy().reshape(shared.groups, -1)
            mine = shared.spread(numbers).reshape(-1)
            back = self.revival and self.budget is None
            found[layer.name] = (
                mine if back else np.where(self.masks[layer.name].reshape(-1), mine, -1.0)
            )
        return found

    def _settle(self, masks: dict[str, FibreMask]) -> None:
        """Take masks for what is to be, and work out what is silent with them."""
        self.masks = masks
        device = next(iter(self.frame.anatomy.parameters.values())).device
        self.tensors = [
            torch.from_numpy(self._held(x, masks[x.name])).to(device, torch.float32)
            .view(-1, *x.kernel) for x in self.layers
        ]  # fmt: skip
        self._silent = silenced(self.frame, masks, self._earlier.drops) + self._uneven

    def _held(self, layer: FibreLayer, mask: FibreMask) -> FibreMask:
        return self.frame.shared[layer.name].some(mask) if self._skeletons else mask

    def _gone_before(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Yield weights of which an earlier plan has cut stripes that others of a group have."""
        for layer in self.layers:
            there = self.frame.start[layer.name]
            if not there.all():
                weight = self.frame.anatomy.parameters[layer.weight]
                mask = torch.from_numpy(there).to(weight).view(-1, 1, *layer.kernel)
                yield weight, mask

    # ------------------------------------------------------------ holding

    @torch.no_grad()
    def hold_(self, tensors: Sequence[Tensor]) -> None:
        """Set what is gone to zero, of the skeletons or the weights of all layers."""
        self.tensors = [m.to(t) for m, t in zip(self.tensors, tensors, strict=True)]
        multiply_([(t, _like(m, t)) for m, t in zip(self.tensors, tensors, strict=True)])
        self._silent = [(t, m.to(t)) for t, m in self._silent]
        multiply_(self._silent)
        self._earlier.zero_()

    @torch.no_grad()
    def hold_gradients_(self, tensors: Sequence[Tensor]) -> None:
        """Keep the gradients of the same, and of what is silent with them, from the optimizer."""
        pairs = [
            (t.grad, _like(m, t.grad).to(t.grad))
            for m, t in zip(self.tensors, tensors, strict=True) if t.grad is not None
        ]  # fmt: skip
        multiply_(pairs)
        multiply_([(t.grad, m.to(t.grad)) for t, m in self._silent if t.grad is not None])
        self._earlier.zero_gradients_()

    # ------------------------------------------------------------ the end

    def finish(self, values: Sequence[Tensor]) -> list[str]:
        """Decide for the last time; return what is to be said of it."""
        notes: list[str] = []
        if not self.over:
            left = self.frame.amount(self.masks, "pieces")
            self._take(self._within(values))
            self.over = True
            now = self.frame.amount(self.masks, "pieces")
            notes.append(
                f"training ended before the budget was met; {left - now} stripes are cut at once"
            )
        if self.held:
            notes.append(
                f"{self.held} stripes below the threshold stay, for their layers would have too few"
            )
        return notes

    def plan(self, made_by: dict[str, Any], notes: Iterable[str]) -> Plan:
        """Return the plan of what is left."""
        said = list(notes)
        made: dict[str, Any] = {
            "threshold": self.threshold, "floor": self.floor, "revival": self.revival,
        }  # fmt: skip
        made |= {"stripe_group": self.group} if self.group > 1 else {}
        if self.budget is not None:
            target = self.budget.target
            whole = self.frame.whole(target)
            share = self.frame.cost(self.masks, target) / self._limit
            limit = self.budget.amount if is_speedup(target) else self.budget.limit(whole)
            made |= {
                "budget": str(self.budget), "limit": limit, "whole": whole,
                "reached": self.frame.amount(self.masks, target),
                "met": 1 - TOLERANCE <= share <= 1, "ramp": self.ramp, "every": self.every,
            }  # fmt: skip
            said += _missed(str(self.budget), share, self.group)
        dead = [b.drop.name for b in self.frame.following.dead_branches(self.masks)]
        if dead:
            said.append(f"a convolution of {', '.join(dead)} has no stripe left: the block goes")
        return self.frame.plan(self.masks, made_by | made | {"notes": said})

    def _moment(self, step: int) -> Moment:
        masks = self.masks
        left = sum(int(m.sum()) for m in masks.values())
        costs = [int(self.frame.amount(masks, t)) for t in ("macs", "params")]
        return Moment(step, self.threshold, left, costs[0], costs[1])

    # ------------------------------------------------------------ going on

    def about(self) -> dict[str, str]:
        """Describe what decides how the course goes."""
        start = None if self.budget is not None else self.threshold
        return {
            "budget": str(self.budget), "threshold": str(start), "ramp": str(self.ramp),
            "every": str(self.every), "revival": str(self.revival), "floor": str(self.floor),
            "layers": ", ".join(x.name for x in self.layers), "after": digest(self.frame.after),
            "stripe_group": str(self.group),
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Return what is gone, and the threshold by which it went."""
        return {
            "threshold": self.threshold, "over": self.over, "held": self.held,
            "above": self._above,
            "masks": {n: torch.from_numpy(m.copy()) for n, m in self.masks.items()},
            "history": [asdict(m) for m in self.history],
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.threshold, self.over, self.held = state["threshold"], state["over"], state["held"]
        self._above = state["above"]
        self.history = [Moment(**m) for m in state["history"]]
        self._settle({n: t.cpu().numpy().astype(np.bool_) for n, t in state["masks"].items()})


def _like(mask: Tensor, tensor: Tensor) -> Tensor:
    """Show the mask of a skeleton as one of the weight, if that is what the tensor is."""
    return mask if mask.dim() == tensor.dim() else mask.unsqueeze(1)


def _missed(budget: str, share: float, group: int) -> list[str]:
    """Say why it is not just what a budget allows that is left."""
    if share > 1:
        return [
            f"{budget} is missed by {share - 1:.1%}: every layer keeps a stripe, and the filters "
            "that these are in need as much; cut channels or blocks first"
        ]
    of = f" of {group} filters" if group > 1 else ""
    if share < 1 - TOLERANCE:
        return [
            f"{1 - share:.1%} less than {budget} allows is left, for what goes goes in steps: a "
            f"stripe{of}, or with the last one a filter or a block"
        ]
    return []


def _check(threshold: float, ramp: int, every: int) -> None:
    if not isinstance(threshold, (int, float)) or not threshold >= 0:
        message = f"threshold is a number of at least 0, got {threshold!r}"
        raise SelectionError(message)
    for name, value in (("ramp", ramp), ("every", every)):
        if type(value) is not int or value < 1:
            message = f"{name} is a number of steps, at least 1, got {value!r}"
            raise SelectionError(message)


def check_begun(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on from a state of other settings; once there were no groups to be said."""
    check_about({"stripe_group": "1", **saved}, now)


def check_alpha(alpha: float) -> None:
    """Refuse what is no weight of a penalty."""
    if not isinstance(alpha, (int, float)) or not 0 <= alpha < math.inf:
        message = f"alpha is the weight of the penalty, at least 0, got {alpha!r}"
        raise SelectionError(message)


def check_trains(anatomy: Anatomy, layers: Iterable[FibreLayer], hint: str = "") -> None:
    """Refuse layers whose weight is frozen, for no stripe of them would be learned."""
    for layer in layers:
        if not anatomy.parameters[layer.weight].requires_grad:
            message = (
                f"'{layer.weight}' is frozen, so nothing is learned of its stripes; let it train, "
                f"or keep=['{layer.name}']{hint}"
            )
            raise SelectionError(message)
