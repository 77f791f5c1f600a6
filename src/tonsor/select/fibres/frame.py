"""From a choice of fibres to its cost and to the plan that removes the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.axes.tree import Mask, mask
from tonsor.cost.account import Account
from tonsor.cost.fibred import by_fibres
from tonsor.cost.smooth import Smooth
from tonsor.drops import Drop
from tonsor.errors import BudgetError
from tonsor.families.fibres import FibreLayers
from tonsor.families.following import Following, Masks
from tonsor.fibres import FibreMask, Fibres, Kind, fibre_leaf
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget, is_speedup
from tonsor.select.earlier import kept_by, ties_of
from tonsor.select.fibres.sharing import Sharing
from tonsor.select.fibres.sure import same_without
from tonsor.select.make import layout_of
from tonsor.surgery.dropping import gone, joined_drops

Left: TypeAlias = dict[str, tuple[Kind, int]]
"""By the name of each weight: how many fibres are left, and of which kind."""


@dataclass(frozen=True)
class Frame:
    """What is the same for every choice of fibres of one model.

    `after` is an earlier plan of the same model: what it removes stays gone, in every choice. With
    `silenced`, a block becomes its shortcut only where it is known what makes its branch zero.
    `group` consecutive filters of a layer, of those that the earlier plan has left, keep the same
    stripes.
    """

    anatomy: Anatomy
    layers: FibreLayers
    after: Plan | None = None
    silenced: bool = False
    group: int = 1
    following: Following = field(init=False, repr=False)
    start: Mapping[str, FibreMask] = field(init=False, repr=False)
    shared: Mapping[str, Sharing] = field(init=False, repr=False)
    _before: Mapping[str, Mask] = field(init=False, repr=False)
    _accounts: dict[tuple[str, ...], Account] = field(
        init=False, repr=False, compare=False, default_factory=dict[tuple[str, ...], Account]
    )

    def __post_init__(self) -> None:
        """Look at the model and the earlier plan once."""
        put = object.__setattr__
        if self.after is not None:
            put(self, "layers", _one_kind(self.layers, self.after))
        put(self, "following", Following(self.anatomy, self.layers, silenced=self.silenced))
        put(self, "_before", _kept_before(self.anatomy, self.after))
        put(self, "start", dict(self._started()))
        put(self, "shared", {n: self._sharing(n, there) for n, there in self.start.items()})

    def _started(self) -> dict[str, FibreMask]:
        """Return the fibres that are there to choose from."""
        found: dict[str, FibreMask] = {}
        for layer in self.layers.free:
            if self.after is not None and gone(self.after.drops, layer.weight):
                continue
            whole = np.ones((layer.rows, layer.positions), dtype=np.bool_)
            if self.after is not None and layer.weight in self.after.fibres:
                whole = self.after.fibres[layer.weight].mask
            whole &= self.following.left(layer.name, self._before)[:, None]
            found[layer.name] = whole
        return found

    def _sharing(self, layer: str, there: FibreMask) -> Sharing:
        return Sharing(self.group, self.following.left(layer, self._before), there)

    @property
    def _gone(self) -> tuple[Drop, ...]:
        return () if self.after is None else self.after.drops

    def amount(self, masks: Masks, target: str) -> float:
        """Return the cost of what a choice leaves, in the unit of a budget's target."""
        drops = joined_drops(self._gone, [b.drop for b in self.following.dead_branches(masks)])
        stay = {n: m for n, m in masks.items() if not gone(drops, self._weight(n))}
        if target == "pieces":
            return int(sum(m.sum() for m in stay.values()))
        alive = self.following.alive(masks, drops, self._before)
        return self._told({n: int(m.sum()) for n, m in stay.items()}, target, alive, drops)

    def amount_of(self, left: Mapping[str, int], target: str) -> float:
        """Return the cost of so many fibres of each layer, where nothing follows of it."""
        if target == "pieces":
            return sum(left.values())
        return self._told(left, target, self._before, self._gone)

    def smooth(self, target: str, layers: Sequence[str], groups: Sequence[str] = ()) -> Smooth:
        """Return the cost of so many fibres of each of these layers, where nothing follows.

        What follows may be told as well, as the channels that are left of these groups.
        """
        kind = self.layers.kind
        left: Left = {self._weight(n): (kind, int(self.start[n].sum())) for n in layers}
        left |= self._left_before(self._before, self._gone)
        account = self._account(left, self._gone)
        names = [fibre_leaf(kind, self._weight(n)) for n in layers]
        return account.smooth(target, [*names, *groups], self._counts(left, self._before))

    def _told(
        self, stay: Mapping[str, int], target: str, alive: Mapping[str, Mask], drops: Sequence[Drop]
    ) -> float:
        kind = self.layers.kind
        left: Left = {self._weight(n): (kind, k) for n, k in stay.items()}
        left |= self._left_before(alive, drops)
        account = self._account(left, drops)
        return account.amount(target, self._counts(left, alive), before=self.anatomy.cost)

    def _account(self, left: Left, drops: Sequence[Drop]) -> Account:
        key = tuple(d.name for d in drops)
        account = self._accounts.get(key)
        if account is None:
            kinds: dict[str, Kind] = {weight: kind for weight, (kind, _) in left.items()}
            whole, graph = self.anatomy.cost_without(drops), self.anatomy.graph
            account = self._accounts[key] = by_fibres(whole, graph, kinds)
        return account

    @staticmethod
    def _counts(left: Left, alive: Mapping[str, Mask]) -> dict[str, int]:
        counts = {n: int(m.sum()) for n, m in alive.items()}
        return counts | {fibre_leaf(kind, weight): n for weight, (kind, n) in left.items()}

    def _left_before(self, alive: Mapping[str, Mask], drops: Sequence[Drop]) -> Left:
        """Count the fibres that the earlier plan left of layers that lose none now."""
        if self.after is None:
            return {}
        now = {self._weight(n) for n in self.start}
        return {
            weight: (
                found.kind,
                int(found.mask[mask(self.anatomy.axes(weight)[found.dim], alive)].sum()),
            )
            for weight, found in self.after.fibres.items()
            if weight not in now and not gone(drops, weight)
        }

    def cost(self, masks: Masks, target: str) -> float:
        """Return the same as something that is to become less."""
        amount = self.amount(masks, target)
        return 1 / amount if is_speedup(target) else amount

    def whole(self, target: str) -> float:
        """Return the amount of the model before anything has gone."""
        if target == "pieces":
            return sum(x.size for x in self.layers.free)
        return self.anatomy.cost.amount(target)

    def limit(self, budget: Budget) -> float:
        """Return what the cost may be at most to meet a budget."""
        whole = self.whole(budget.target)
        if not 0 < whole < math.inf:
            message = (
                f"{budget} says nothing here, for the whole model has no {budget.target} to begin "
                "with; choose another target"
            )
            raise BudgetError(message)
        return budget.limit(1 / whole if is_speedup(budget.target) else whole)

    def plan(self, masks: Masks, made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these fibres, and what follows.

        That channels follow columns is tried: if the model computes anything else without them,
        they stay, and the plan says so.
        """
        dead = [b.drop for b in self.following.dead_branches(masks)]
        drops = joined_drops(self._gone, dead)
        alive = self.following.alive(masks, drops, self._before)
        decided = self._decided(masks, alive, drops, made_by)
        before: Mapping[str, tuple[int, ...]] = {} if self.after is None else self.after.keep
        if self.layers.kind == "stripes":
            return decided
        left = {
            self._weight(n): Fibres.of("columns", m, self.layers.by_name[n].kernel)
            for n, m in masks.items() if not m.all() and not gone(drops, self._weight(n))
        }  # fmt: skip
        if same_without(self.anatomy, decided, before, left):
            return decided
        self.following.stop()
        return self._decided(masks, self._before, drops, self._told_anew(masks, made_by))

    def _told_anew(self, masks: Masks, made_by: Mapping[str, Any]) -> dict[str, Any]:
        """Say what a choice has come to where nothing may follow of it after all."""
        made = dict(made_by)
        made["notes"] = [
            *made.get("notes", ()),
            "channels that only columns seemed to read which are gone stay, for without them the "
            "model computes something else",
        ]
        if "budget" in made:
            budget = as_budget(made["budget"])
            made["reached"] = self.amount(masks, budget.target)
            made["met"] = self.cost(masks, budget.target) <= self.limit(budget)
        return made

    def _decided(
        self, masks: Masks, alive: Mapping[str, Mask], drops: Sequence[Drop],
        made_by: Mapping[str, Any],
    ) -> Plan:  # fmt: skip
        kind = self.layers.kind
        fibres: dict[str, Fibres] = {}
        for name, kept in masks.items():
            layer = self.layers.by_name[name]
            if gone(drops, layer.weight):
                continue
            there = self.following.left(name, alive)
            if not kept[there].all():
                fibres[layer.weight] = Fibres.of(kind, kept & there[:, None], layer.kernel)
        made = {"version": __version__, "family": kind, **made_by}
        only = Plan(
            fingerprint=fingerprint(self.anatomy.model),
            keep={n: tuple(np.flatnonzero(m).tolist()) for n, m in alive.items() if not m.all()},
            layout=layout_of(self.anatomy),
            mends=self.anatomy.mends,
            ties=ties_of(self.anatomy),
            made_by=made,
            probe=self.anatomy.inputs,
            drops=tuple(drops),
            fibres=fibres,
        )
        if self.after is None:
            return only
        return replace(only.merge(self.after), made_by=made)

    def _weight(self, layer: str) -> str:
        return self.layers.by_name[layer].weight


def _one_kind(layers: FibreLayers, after: Plan) -> FibreLayers:
    """Leave whole what an earlier plan has cut into fibres of the other kind."""
    for kind, mine in (("stripes", after.stripes), ("columns", after.columns)):
        if kind != layers.kind and mine:
            held = [x.name for x in layers if x.weight in mine]
            layers = layers.without(held, f"it has lost {kind} by the earlier plan")
    return layers


def _kept_before(anatomy: Anatomy, after: Plan | None) -> dict[str, Mask]:
    if after is None:
        return {}
    after.check(anatomy.model)
    return kept_by(anatomy, after)
