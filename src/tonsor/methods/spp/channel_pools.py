"""Channels as pools: one for each group of channels that go together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.errors import SelectionError
from tonsor.families.channels import Part, parts, vectors, views
from tonsor.methods.earlier import Earlier
from tonsor.methods.spp.drawn import GradMode, Held, hold
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.earlier import left_by, ties_of
from tonsor.select.make import layout_of
from tonsor.select.names import Named, touching
from tonsor.types import Group

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


class ChannelPools:
    """The channels of each group that may be cut alone.

    A channel is masked where layers sum over it, and in the scale and shift of the last norm before
    that; in what makes it only where there is no norm, whose statistics the mask would otherwise
    change. Groups over which a layer norm or softmax runs are left out, for masking and cutting are
    not the same there.
    """

    def __init__(
        self, anatomy: Anatomy, by: str, keep: Iterable[Named], after: Plan | None, mode: GradMode
    ) -> None:
        self._anatomy, self._by, self._after = anatomy, by, after
        before = left_by(anatomy, after)
        stay = set(touching(anatomy, list(keep)))
        scored = score(anatomy, by, quiet=True).values
        self.groups: tuple[Group, ...] = tuple(
            g for g in anatomy.prunable
            if g.tie is None and g.unit == 1 and not g.approximate and g.name in scored
            and g.name not in stay
        )  # fmt: skip
        if not self.groups:
            message = (
                "no group of channels of this model may go by chance: each is pinned, kept, tied "
                "to another, or normalised over"
            )
            raise SelectionError(message)
        self.there: Mapping[str, Tensor] = {
            g.name: torch.from_numpy(before[g.name].copy()) if g.name in before
            else torch.ones(g.size, dtype=torch.bool)
            for g in self.groups
        }  # fmt: skip
        self._places = {g.name: list(_masked(anatomy, g)) for g in self.groups}
        self.earlier = Earlier(anatomy, after, {})
        self._held = held = hold(
            anatomy,
            dict.fromkeys(p.member.tensor for places in self._places.values() for p in places),
            mode,
        )
        self.held: Mapping[str, tuple[Held, ...]] = {
            g: tuple({p.member.tensor: held[p.member.tensor] for p in places}.values())
            for g, places in self._places.items()
        }

    def scores(self) -> list[Tensor]:
        """Score the channels of all groups."""
        found = score(self._anatomy, self._by, quiet=True).values
        return [torch.from_numpy(found[g.name]) for g in self.groups]

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
        names = (g.name for g in self.groups)
        return self.even({n: int(k.sum()) for n, k in zip(names, kept, strict=True)}, target)

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return what it costs, for which it is all the same which channels are left."""
        if target == "pieces":
            return sum(left.values())
        before = {} if self._after is None else self._after.counts
        return self._anatomy.cost.amount(target, {**before, **left})

    def whole(self, target: str) -> float:
        """Return the cost of the whole model."""
        if target == "pieces":
            return sum(g.size for g in self.groups)
        return self._anatomy.cost.amount(target)

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these channels."""
        before = {} if self._after is None else dict(self._after.keep)
        now = {
            g.name: tuple(k.nonzero().flatten().tolist())
            for g, k in zip(self.groups, kept, strict=True) if not k.all()
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

    def _masks(self, stays: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return for each parameter a mask that can be broadcast: a vector for each dimension."""
        found: dict[str, dict[int, Tensor]] = {name: {} for name in self._held}
        for group, stay in zip(self.groups, stays, strict=True):
            factor = stay.double()
            for part in self._places[group.name]:
                dim, tensor = part.member.dim, part.member.tensor
                size = self._held[tensor].weight.shape[dim]
                along = found[tensor].setdefault(dim, torch.ones(size, dtype=torch.float64))
                view = list(views(along, part.member.axis, group.name))[part.place]
                view.mul_(factor.view(-1, *(1,) * (view.dim() - 1)))
        return {name: self._spread(name, along) for name, along in found.items()}

    def _spread(self, name: str, along: Mapping[int, Tensor]) -> Tensor:
        mask, rank = torch.ones((), dtype=torch.float64), self._held[name].weight.dim()
        for dim, vector in along.items():
            mask = mask * vector.view(*(-1 if d == dim else 1 for d in range(rank)))
        return mask


def _masked(anatomy: Anatomy, group: Group) -> Iterator[Part]:
    """Yield the places of parameters in which a channel is masked.

    A norm must not see the mask, so that what comes before the last one stays as it is.
    """
    weights = list(parts(anatomy, group))
    flat = [p for p in vectors(anatomy, group) if p not in weights]
    readers = [p for p in weights if not p.made]
    passing = [p for p in readers if _passes(anatomy, p)]
    members = [m.tensor for m in group.members]
    norms = [i for t in members if isinstance(_owner(anatomy, t), _NORMS) for i in _ops(anatomy, t)]
    on_the_way = [i for p in passing for i in _ops(anatomy, p.member.tensor)]

    def seen(first: int) -> bool:
        """Whether a norm sees what an operator returns, by way of a layer that passes it on."""
        return any(first < way < norm for way in on_the_way for norm in norms)

    found = [p for p in readers if p not in passing]
    for part in passing:
        if not any(n > min(_ops(anatomy, part.member.tensor)) for n in norms):
            found.append(part)
    if norms:
        scales = [p for p in flat if isinstance(_owner(anatomy, p.member.tensor), _NORMS)]
        found += [p for p in scales if not seen(min(_ops(anatomy, p.member.tensor)))]
    if not norms or not found:
        found += [p for p in weights if p.made] + flat
    yield from found


def _passes(anatomy: Anatomy, part: Part) -> bool:
    """Whether a layer passes channels on one by one, as a depthwise convolution does."""
    name = anatomy.graph.name_of[anatomy.graph.tensors[part.member.tensor]]
    return any(u.shows(anatomy.solution, part.group) for u in anatomy.uses.get(name, ()))


def _ops(anatomy: Anatomy, tensor: str) -> list[int]:
    """Return where a parameter or buffer is read."""
    value = anatomy.graph.tensors[tensor]
    return [op.index for op in anatomy.graph.ops if value in op.inputs]


def _owner(anatomy: Anatomy, tensor: str) -> nn.Module:
    return anatomy.model.get_submodule(tensor.rpartition(".")[0])
