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
from tonsor.families.channels import Part, parts, vectors
from tonsor.methods.spp.drawn import GradMode, Held
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.earlier import left_by, ties_of
from tonsor.select.make import layout_of
from tonsor.select.names import Named, touching
from tonsor.types import Group

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


class ChannelPools:
    """The channels of each group that may be cut alone.

    A channel is masked where it is read, and in the scale and shift of its norm; in what makes it
    only where there is no norm, whose statistics the mask would otherwise change. Groups over which
    a layer norm or softmax runs are left out, for masking and cutting are not the same there.
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
        held: dict[str, Held] = {}
        for part in (p for places in self._places.values() for p in places):
            name = part.member.tensor
            if name not in held:
                owner, _, last = name.rpartition(".")
                held[name] = Held(anatomy.model.get_submodule(owner), last, mode)
        self._held = held
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
        found = {
            name: torch.ones(held.weight.shape, dtype=torch.bool)
            for name, held in self._held.items()
        }
        for group, stay in zip(self.groups, stays, strict=True):
            gone = (~stay).nonzero().flatten()
            for part in self._places[group.name] if len(gone) else ():
                part.of(found[part.member.tensor]).index_fill_(0, gone, False)
        return found


def _masked(anatomy: Anatomy, group: Group) -> Iterator[Part]:
    """Yield the places of parameters in which a channel is masked."""
    weights = list(parts(anatomy, group))
    flat = [p for p in vectors(anatomy, group) if p not in weights]
    scales = [p for p in flat if isinstance(_owner(anatomy, p), _NORMS)]
    yield from (p for p in weights if not p.made)
    if scales:
        yield from scales
    else:
        yield from (p for p in weights if p.made)
        yield from flat


def _owner(anatomy: Anatomy, part: Part) -> nn.Module:
    return anatomy.model.get_submodule(part.member.tensor.rpartition(".")[0])
