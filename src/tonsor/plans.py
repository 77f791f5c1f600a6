"""The waist of everything: what goes, in the coordinates of the model it was made for.

A plan is data. It can be printed, saved as JSON, merged with another, carried over to the
original of an already cut model, compared, applied and undone. Nothing in it is a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tonsor.axes.carry import carried, originals, shrunk
from tonsor.axes.tree import Mask, count, mask, project
from tonsor.drops import Drop
from tonsor.errors import PlanError
from tonsor.fibres import Fibres, fibre_leaf
from tonsor.graph.inputs import Inputs
from tonsor.graph.trace import check_supported, unwrap
from tonsor.plan_parts import (
    PlanDiff,
    beside,
    carried_ties,
    fibres_apart,
    fibres_before,
    fibres_of_both,
    fibres_text,
    fingerprint,
    in_original,
    in_terms_of,
)
from tonsor.surgery.apply import apply_cut, mask_model
from tonsor.surgery.cutting import make_cut
from tonsor.surgery.dropping import apart, gone, joined_drops, later_drops, uneven
from tonsor.surgery.fibre_layers import check_fibres, left_shape
from tonsor.surgery.moves import cut_state, grown, move_optimizer
from tonsor.surgery.proof import Proof, prove
from tonsor.surgery.ties import Tie, broken, holds, joined
from tonsor.types import Axis, Cut, Mend, leaves

Keep = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Plan:
    """Kept indices per group, and everything needed to cut a model accordingly.

    `fingerprint` names every tensor of the model with its shape, `keep` maps the name of a
    group to the indices that stay (groups that are whole are absent), `layout` says through
    which dimensions the groups run, `mends` which attributes follow, `ties` which groups lose
    indices in step, `drops` which blocks go, `fibres` which stripes or columns stay of the
    convolutions that lose some, and `made_by` who decided (criterion, budget, seed, version).
    """

    fingerprint: Mapping[str, tuple[int, ...]]
    keep: Keep
    layout: Mapping[str, tuple[Axis, ...]]
    mends: tuple[Mend, ...] = ()
    ties: tuple[Tie, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)
    probe: Inputs | None = field(default=None, compare=False, repr=False)
    drops: tuple[Drop, ...] = ()
    fibres: Mapping[str, Fibres] = field(default_factory=dict[str, Fibres])

    # ------------------------------------------------------------ reading

    @property
    def counts(self) -> dict[str, int]:
        """How many indices stay in each group that loses some."""
        return {name: len(kept) for name, kept in self.keep.items()}

    @property
    def amounts(self) -> dict[str, int]:
        """What costs are told by: the counts, and how many fibres stay of each convolution."""
        return self.counts | {fibre_leaf(f.kind, n): f.left for n, f in self.cut().fibres.items()}

    @property
    def stripes(self) -> dict[str, Fibres]:
        """The stripes that stay of the convolutions that lose some."""
        return {n: f for n, f in self.fibres.items() if f.kind == "stripes"}

    @property
    def columns(self) -> dict[str, Fibres]:
        """The columns that stay of the convolutions that lose some."""
        return {n: f for n, f in self.fibres.items() if f.kind == "columns"}

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every group in the layout, before anything goes."""
        return {f.name: f.size for axes in self.layout.values() for a in axes for f in leaves(a)}

    def cut(self) -> Cut:
        """Return what surgery needs: kept indices of each tensor, new values of attributes."""
        cut = make_cut(self.layout, self.mends, self._masks())
        fibres = {
            name: found.among(cut.keep.get(name))
            for name, found in self.fibres.items() if not gone(self.drops, name)
        }  # fmt: skip
        return replace(cut, drops=self.drops, fibres=fibres)

    def _masks(self) -> dict[str, Mask]:
        sizes = self.sizes
        masks: dict[str, Mask] = {}
        for name, kept in self.keep.items():
            masks[name] = np.zeros(sizes[name], dtype=np.bool_)
            masks[name][list(kept)] = True
        return masks

    def __str__(self) -> str:
        sizes = self.sizes
        lines = [f"Plan: {len(self.keep)} of {len(sizes)} groups lose indices"]
        if self.drops:
            lines.append(f"  {len(self.drops)} blocks go: {', '.join(d.name for d in self.drops)}")
        if self.fibres:
            lines.append(f"  {fibres_text(self.cut().fibres)}")
        lines += [f"  {k}: {v}" for k, v in self.made_by.items() if v not in ({}, [])]
        width = max((len(n) for n in self.keep), default=0)
        lines += [f"  {n:<{width}}  {sizes[n]:>6} → {len(k)}" for n, k in self.keep.items()]
        return "\n".join(lines)

    # ------------------------------------------------------------ acting

    def check(self, model: nn.Module) -> None:
        """Raise `PlanError` unless the plan was made for a model of these names and shapes."""
        check_supported(model)
        found = fingerprint(model)
        if found == dict(self.fingerprint):
            return
        for name, shape in self.fingerprint.items():
            if name not in found:
                message = f"the plan knows '{name}', the model has no such tensor"
                raise PlanError(message)
            if found[name] != tuple(shape):
                message = (
                    f"'{name}' has shape {found[name]}, the plan was made for {tuple(shape)}. "
                    "A plan applies to the original model; for one made on a model that was "
                    "already cut, use plan.rebase(earlier) first."
                )
                raise PlanError(message)
        extra = next(n for n in found if n not in self.fingerprint)
        message = f"the model has a tensor '{extra}' that the plan knows nothing of"
        raise PlanError(message)

    def apply(self, model: nn.Module, *, inputs: Any = None, verify: bool = True) -> nn.Module:
        """Return a slim model of the same class, proven equal to the masked original.

        The model given is not touched. The proof runs on `inputs`, or on those the plan was
        made with; `verify=False` leaves it out.
        """
        model = unwrap(model)
        self.check(model)
        cut = self.cut()
        torn = (
            broken(self.ties, self.counts, self.sizes) or uneven(cut, self.fingerprint)
            or check_fibres(model, cut)
        )  # fmt: skip
        if torn is not None:
            raise PlanError(torn)
        slim = apply_cut(model, cut)
        if verify:
            self.prove(model, slim, inputs=inputs)
        return slim

    def prove(self, model: nn.Module, slim: nn.Module, *, inputs: Any = None) -> Proof:
        """Compare the slim model with the masked original in float64, or raise `ProofError`."""
        given = beside(model, self.probe) if inputs is None else inputs
        if given is None:
            message = (
                "no example input to prove the cut with: pass inputs=..., "
                "or verify=False to do without the proof"
            )
            raise PlanError(message)
        return prove(unwrap(model), slim, self.cut(), given)

    def mask(self, model: nn.Module) -> nn.Module:
        """Return a copy of the model at full size with everything that goes set to zero.

        A block that goes is there no more than in the slim model, which leaves its shortcut.
        """
        self.check(unwrap(model))
        return mask_model(unwrap(model), self.cut())

    def revert(self, slim: nn.Module, original: nn.Module) -> nn.Module:
        """Undo: the original's size, the slim model's weights, the original's where cut."""
        original = unwrap(original)
        self.check(original)
        return grown(unwrap(slim), original, self.cut())

    def apply_to(self, optimizer: torch.optim.Optimizer, model: nn.Module, slim: nn.Module) -> None:
        """Point an optimizer of `model` at `slim`, with momentum sliced like the weights."""
        move_optimizer(optimizer, unwrap(model), unwrap(slim), self.cut())

    def cut_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Slice a state dict of the original, such as an EMA copy; `module.` is allowed."""
        return cut_state(state, self.cut())

    # ------------------------------------------------------------ combining

    def merge(self, other: Plan) -> Plan:
        """Return a plan that removes what either removes; both are of the same original.

        Refused where the model's code needs groups cut in step and they no longer would be.
        """
        if dict(self.fingerprint) != dict(other.fingerprint):
            message = "the plans were made for different models; see plan.rebase for cut ones"
            raise PlanError(message)
        layout = dict(self.layout)
        for name, axes in other.layout.items():
            if layout.setdefault(name, axes) != axes:
                message = f"the plans see '{name}' coupled in different ways"
                raise PlanError(message)
        keep = dict(self.keep)
        for name, kept in other.keep.items():
            both = set(kept) & set(keep.get(name, kept))
            if not both:
                message = f"together the plans would leave nothing of '{name}'"
                raise PlanError(message)
            keep[name] = tuple(sorted(both))
        mends = {(m.module, m.path): m for m in (*other.mends, *self.mends)}
        ties = joined((*self.ties, *other.ties))
        made_by = {"merged": [dict(self.made_by), dict(other.made_by)]}
        probe = self.probe or other.probe
        drops = joined_drops(self.drops, other.drops)
        both = Plan(
            self.fingerprint, keep, layout, tuple(mends.values()), ties, made_by, probe, drops,
            fibres_of_both(self.fibres, other.fibres),
        )  # fmt: skip
        torn = broken(ties, both.counts, both.sizes) or uneven(both.cut(), both.fingerprint)
        if torn is not None:
            message = f"the plans can't be merged, for together {torn}"
            raise PlanError(message)
        return both

    def rebase(self, earlier: Plan) -> Plan:
        """Express a plan made on an already cut model in the coordinates of its original.

        `later.rebase(earlier).apply(original)` is `later.apply(earlier.apply(original))`.
        """
        keep_before = earlier.cut().keep
        self._check_follows(earlier, keep_before)
        names = originals(self.layout, earlier.layout, earlier.counts)
        layout = dict(earlier.layout)
        for name, axes in self.layout.items():
            layout.setdefault(name, tuple(carried(a, names) for a in axes))
        masks: dict[str, Mask] = {n: m.copy() for n, m in earlier._masks().items()}
        later = self._masks()
        wanted = {}
        for name, axes in self.layout.items():
            before = keep_before.get(name) or (None,) * len(axes)
            wanted[name] = [
                in_original(mask(a, later), kept, shape)
                for a, kept, shape in zip(axes, before, earlier.fingerprint[name], strict=True)
            ]
        for name, dims in wanted.items():
            for axis, want in zip(layout[name], dims, strict=True):
                for leaf, seen in project(axis, want):
                    masks[leaf.name] = masks.get(leaf.name, np.ones(leaf.size, np.bool_)) & seen
        for name, dims in wanted.items():
            for axis, want in zip(layout[name], dims, strict=True):
                if not (mask(axis, masks) == want).all():
                    message = f"the later plan cuts '{name}' finer than the original is coupled"
                    raise PlanError(message)
        kept = {n: tuple(m.nonzero()[0].tolist()) for n, m in masks.items() if not m.all()}
        left = {n: len(k) for n, k in kept.items()}
        mends = {(m.module, m.path): m for m in earlier.mends}
        for item in self.mends:
            known = mends.get((item.module, item.path))
            if known is None or count(known.axis, left) != count(item.axis, self.counts):
                mends[item.module, item.path] = replace(item, axis=carried(item.axis, names))
        total = Plan(
            earlier.fingerprint,
            kept,
            layout,
            tuple(mends.values()),
            made_by={"first": dict(earlier.made_by), "then": dict(self.made_by)},
            probe=earlier.probe,
            drops=joined_drops(earlier.drops, self.drops),
            fibres=fibres_before(self.fibres, earlier.fingerprint, keep_before),
        )
        # A tie of one model need not be one of the other, for its code may take other ways.
        ties = joined((*earlier.ties, *carried_ties(self.ties, names)))
        sizes = total.sizes
        return replace(total, ties=tuple(
            t for t in ties if t.keys() <= sizes.keys() and holds(t, total.counts, sizes)
        ))  # fmt: skip

    def relative_to(self, earlier: Plan) -> Plan:
        """Express this plan in the coordinates of the model that `earlier` has left.

        The way back from `rebase`: `total.relative_to(earlier)` applies to the cut model.
        """
        keep = {}
        for name in {**self.keep, **earlier.keep}:
            size = self.sizes[name]
            before = earlier.keep.get(name, tuple(range(size)))
            now = set(self.keep.get(name, range(size)))
            if not now <= set(before):
                message = f"the earlier plan removed indices of '{name}' that this keeps"
                raise PlanError(message)
            kept = tuple(i for i, index in enumerate(before) if index in now)
            if len(kept) < len(before):
                keep[name] = kept
        if earlier.fibres:
            message = (
                f"the earlier plan has cut convolutions into {_kinds(earlier)}, and what is left "
                "has other coordinates; apply this plan to the original"
            )
            raise PlanError(message)
        counts = earlier.counts
        cut_before = earlier.cut().keep
        shapes = {
            n: tuple(s if k is None else len(k) for s, k in zip(shape, cut_before[n], strict=True))
            if n in cut_before else shape
            for n, shape in self.fingerprint.items() if not gone(earlier.drops, n)
        }  # fmt: skip
        layout = {
            n: tuple(shrunk(a, counts) for a in axes)
            for n, axes in self.layout.items() if n in shapes
        }  # fmt: skip
        mends = tuple(
            replace(m, axis=shrunk(m.axis, counts))
            for m in self.mends if not gone(earlier.drops, m.module)
        )  # fmt: skip
        drops = later_drops(self.drops, earlier.drops)
        known = {f.name for axes in layout.values() for a in axes for f in leaves(a)}
        keep = {n: k for n, k in keep.items() if n in known}
        made_by = dict(self.made_by)
        fibres = in_terms_of(self.fibres, shapes, cut_before)
        return Plan(shapes, keep, layout, mends, self.ties, made_by, self.probe, drops, fibres)

    def _check_follows(self, earlier: Plan, keep: Mapping[str, Sequence[Any]]) -> None:
        if earlier.fibres:
            message = (
                f"the earlier plan has cut convolutions into {_kinds(earlier)}, and a plan made on "
                "what that left can't be told in the original's coordinates. Plan on the original "
                "instead, with after=the earlier plan."
            )
            raise PlanError(message)
        for name, shape in self.fingerprint.items():
            original = earlier.fingerprint.get(name)
            if original is None:
                message = f"the earlier plan knows no tensor '{name}'"
                raise PlanError(message)
            left = left_shape(original, keep.get(name), None)
            if left != tuple(shape):
                message = (
                    f"the earlier plan leaves '{name}' as {left}, "
                    f"this plan was made for {tuple(shape)}"
                )
                raise PlanError(message)

    def diff(self, other: Plan) -> PlanDiff:
        """Return which indices only one of the two plans removes."""
        sizes = {**other.sizes, **self.sizes}
        mine, theirs = {}, {}
        for name in sizes:
            every = set(range(sizes[name]))
            one = every - set(self.keep.get(name, every))
            two = every - set(other.keep.get(name, every))
            if one - two:
                mine[name] = tuple(sorted(one - two))
            if two - one:
                theirs[name] = tuple(sorted(two - one))
        return PlanDiff(
            mine, theirs, *apart(self.drops, other.drops),
            stripes_first=fibres_apart(self.stripes, other.stripes),
            stripes_second=fibres_apart(other.stripes, self.stripes),
            columns_first=fibres_apart(self.columns, other.columns),
            columns_second=fibres_apart(other.columns, self.columns),
        )  # fmt: skip


def _kinds(plan: Plan) -> str:
    """Say what a plan has cut convolutions into."""
    return " and ".join(sorted({f.kind for f in plan.fibres.values()}))
