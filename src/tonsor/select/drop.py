"""Plans that remove whole blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.drops import Drop
from tonsor.errors import PlanError, ProofError, SelectionError
from tonsor.families.blocks.block import Block, Blocks
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.earlier import ties_of
from tonsor.select.make import layout_of
from tonsor.surgery.dropping import renumbers, uneven
from tonsor.types import Leaf


def drop_plan(
    anatomy: Anatomy,
    blocks: Blocks,
    names: Iterable[str],
    *,
    made_by: Mapping[str, Any] | None = None,
    after: Plan | None = None,
) -> Plan:
    """Return the plan that removes just these blocks, in whatever order they are named.

    Where a plain layer makes more channels than it reads, what follows reads the first only.
    `after` is an earlier plan of the same model, whose cuts stay.
    """
    chosen = _chosen(blocks, names)
    drops = [b.drop for b in chosen if b.drop is not None]
    made = {"version": __version__, "family": "blocks", **(made_by or {})}
    only = Plan(
        fingerprint=fingerprint(anatomy.model),
        keep=_sliced(anatomy, drops, {} if after is None else dict(after.keep)),
        layout=layout_of(anatomy),
        mends=anatomy.mends,
        ties=ties_of(anatomy),
        made_by=made,
        probe=anatomy.inputs,
        drops=tuple(drops),
    )
    if (torn := uneven(only.cut(), only.fingerprint)) is not None:
        raise SelectionError(torn)
    return only if after is None else replace(only.merge(after), made_by=made)


def that_go_together(
    anatomy: Anatomy, blocks: Blocks, order: Iterable[str], after: Plan | None = None
) -> tuple[list[str], dict[str, str]]:
    """Return the blocks that may go one after another, and why others can't go with those.

    Only plain layers whose numbers of channels differ get in each other's way.
    """
    going: list[str] = []
    left: dict[str, str] = {}
    plain = any(b.kind == "plain" for b in blocks.removable)
    for name in order:
        if plain:
            try:
                drop_plan(anatomy, blocks, [*going, name], after=after)
            except (SelectionError, PlanError) as error:
                left[name] = str(error)
                continue
        going.append(name)
    return going, left


def with_numbers_that_hold(anatomy: Anatomy, plan: Plan) -> Plan:
    """Leave the numbers of layers as they are where what the model computes depends on them.

    They close up otherwise, for caches are filled by them.
    """
    if not renumbers(anatomy.model, plan.drops):
        return plan
    slim = plan.apply(anatomy.model, verify=False)
    try:
        plan.prove(anatomy.model, slim)
    except ProofError:
        fixed = replace(plan, drops=tuple(replace(d, renumber=False) for d in plan.drops))
        fixed.apply(anatomy.model)
        return fixed
    return plan


def _chosen(blocks: Blocks, names: Iterable[str]) -> list[Block]:
    wanted = [blocks.named(n) for n in dict.fromkeys(names)]
    for block in wanted:
        if not block.removable:
            message = f"block '{block.name}' may not go: {block.reason}"
            raise SelectionError(message)
    return [b for b in blocks if b in wanted]


def _sliced(
    anatomy: Anatomy, drops: Sequence[Drop], keep: dict[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Have what follows a plain layer read what the layer was given."""
    for drop in drops:
        ends = _ends(anatomy, drop)
        if ends is None or drop.fit in ("narrow", "tile"):
            continue
        out, given = ends
        if drop.fit == "same" and given.name not in keep and out.name not in keep:
            continue
        kept = keep.get(given.name, tuple(range(given.size)))
        known = keep.get(out.name)
        if known is not None and known != kept:
            message = (
                f"block '{drop.name}' can't go: the channels that it makes are cut otherwise "
                "than those that it reads"
            )
            raise SelectionError(message)
        group = anatomy.by_name.get(out.name)
        if len(kept) < out.size and group is not None and group.prunable:
            keep[out.name] = kept
    return keep


def _ends(anatomy: Anatomy, drop: Drop) -> tuple[Leaf, Leaf] | None:
    """Return the channels that a plain layer makes, and those that it reads, if they are groups."""
    if not drop.weight:
        return None
    out, given, *_ = anatomy.axes(drop.weight)
    if given.size != drop.channels[0]:
        return None  # a convolution in groups
    return (out, given) if isinstance(out, Leaf) and isinstance(given, Leaf) else None
