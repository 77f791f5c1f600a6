"""Channels as pools: one for each group of channels that go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.methods.earlier import Earlier
from tonsor.methods.pools.base import Expected, Wanted
from tonsor.methods.pools.channel_masks import ChannelMasks
from tonsor.methods.pools.channel_places import Places, every_place, one_place
from tonsor.methods.pools.drawn import Held, hold
from tonsor.methods.pools.scores import ChannelScores
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.earlier import left_by, ties_of
from tonsor.select.make import layout_of
from tonsor.select.names import touching
from tonsor.types import Group


class ChannelPools:
    """The channels of each group that may be cut.

    A channel is masked where layers sum over it, and in the scale and shift of the last norm before
    that; in what makes it only where there is no norm, whose statistics the mask would otherwise
    change. Where masks are learned, it is one of these. Otherwise groups that are tied to others
    are left out, and those over which a layer norm or softmax runs, for masking and cutting are not
    the same there.
    """

    def __init__(self, anatomy: Anatomy, wanted: Wanted) -> None:
        self._anatomy, self._after = anatomy, wanted.after
        before = left_by(anatomy, wanted.after)
        self._scores = ChannelScores(anatomy, wanted)
        self.groups: tuple[Group, ...] = _groups(anatomy, wanted, self._scores.scored())
        self._names = [g.name for g in self.groups]
        self._scores.check(self._names)
        self.there: Mapping[str, Tensor] = {
            g.name: torch.from_numpy(before[g.name].copy()) if g.name in before
            else torch.ones(g.size, dtype=torch.bool)
            for g in self.groups
        }  # fmt: skip
        self.tied: Sequence[Mapping[str, int]] = _tied(self.groups)
        places: Places = (
            one_place(anatomy, self.groups) if wanted.learned
            else {g.name: every_place(anatomy, g) for g in self.groups}
        )  # fmt: skip
        tensors = {name: [p.member.tensor for p in mine] for name, mine in places.items()}
        self.earlier = Earlier(anatomy, wanted.after, {})
        every = dict.fromkeys(t for mine in tensors.values() for t in mine)
        shapes = {t: tuple(anatomy.parameters[t].shape) for t in every}
        self._masks = ChannelMasks(
            [g.size for g in self.groups], [places[n] for n in self._names], shapes
        )
        self._held = held = hold(anatomy, every, wanted.mode)
        self.held: Mapping[str, tuple[Held, ...]] = {
            group: tuple({t: held[t] for t in mine}.values()) for group, mine in tensors.items()
        }

    @property
    def ready(self) -> bool:
        """Whether there are scores by now."""
        return self._scores.ready

    def see(self) -> None:
        """Look at the gradients of a step."""
        self._scores.see()

    def scores(self) -> list[Tensor]:
        """Score the channels of all groups."""
        return self._scores.look(self._names)

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen of training."""
        return self._scores.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._scores.load_state_dict(state)

    def show_(self, drawn: Sequence[Tensor], kept: Sequence[Tensor] | None = None) -> None:
        """Mask the weights: a parameter of several groups by all of them."""
        masks = self._masks(drawn)
        stay = None if kept is None else self._masks(kept)
        for name, held in self._held.items():
            held.show_(masks[name], None if stay is None else stay[name])

    def silence(self, kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """Nothing else speaks."""
        return []

    def amount(self, kept: Sequence[Tensor], target: str) -> float:
        """Return the cost of what is left."""
        return self.even({n: int(k.sum()) for n, k in zip(self._names, kept, strict=True)}, target)

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return what it costs, for which it is all the same which channels are left."""
        if target == "pieces":
            return sum(left.values())
        before = {} if self._after is None else self._after.counts
        return self._anatomy.cost.amount(target, {**before, **left})

    def expected(self, target: str) -> Expected:
        """Return what tells the cost where channels stay in part: a polynomial of their sums."""
        if target == "pieces":
            return lambda stays: torch.cat(list(stays)).sum()
        before = {} if self._after is None else self._after.counts
        cost = self._anatomy.cost.smooth(target, self._names, before)
        return lambda stays: cost(torch.stack([s.sum() for s in stays]))

    def whole(self, target: str) -> float:
        """Return the cost of the whole model."""
        if target == "pieces":
            return sum(g.size for g in self.groups)
        return self._anatomy.cost.amount(target)

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these channels."""
        before = {} if self._after is None else dict(self._after.keep)
        now = {
            n: tuple(k.nonzero().flatten().tolist())
            for n, k in zip(self._names, kept, strict=True) if not k.all()
        }  # fmt: skip
        return Plan(
            fingerprint=fingerprint(self._anatomy.model),
            keep={**before, **now},
            layout=layout_of(self._anatomy),
            mends=self._anatomy.mends,
            ties=ties_of(self._anatomy),
            made_by={"version": __version__, "family": "channels", **made_by},
            probe=self._anatomy.inputs,
        )


def _groups(anatomy: Anatomy, wanted: Wanted, scored: set[str]) -> tuple[Group, ...]:
    """Return the groups whose channels may go."""
    stay = set(touching(anatomy, list(wanted.keep)))
    free = [g for g in anatomy.prunable if g.name in scored and g.name not in stay]
    if wanted.learned:
        whole = {g.tie for g in anatomy.prunable if g.tie is not None and g not in free}
        free = [g for g in free if g.tie not in whole]
    else:
        free = [g for g in free if g.tie is None and g.unit == 1 and not g.approximate]
    if not free:
        why = (
            "kept, or can't be scored"
            if wanted.learned
            else "kept, tied to another, or normalised over"
        )
        message = f"no group of channels of this model may go in this way: each is pinned, {why}"
        raise SelectionError(message)
    return tuple(free)


def _tied(groups: Sequence[Group]) -> list[dict[str, int]]:
    """Return the groups that lose channels together, and how many at a step."""
    found: dict[object, dict[str, int]] = {}
    for group in groups:
        key = group.name if group.tie is None else group.tie
        found.setdefault(key, {})[group.name] = group.unit
    return list(found.values())
