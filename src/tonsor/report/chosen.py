"""What a plan of learned criteria leaves of each convolution, and which criterion chose that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tonsor.anatomy import Anatomy
from tonsor.axes.tree import count
from tonsor.errors import PlanError
from tonsor.families.blocks.find import find_blocks
from tonsor.plans import Plan
from tonsor.surgery.dropping import gone
from tonsor.types import Conv, leaves

SEVERAL = "several"
_Site = Callable[[Conv], str]


@dataclass(frozen=True, slots=True)
class Left:
    """A convolution of which `left` of the `of` pieces stay, as `criterion` chose at `site`.

    Both are empty where nothing may go. Convolutions of one site share what was chosen there.
    """

    layer: str
    left: int
    of: int
    site: str = ""
    criterion: str = ""


def what_is_left(plan: Plan, anatomy: Anatomy) -> tuple[Left, ...]:
    """Return what a plan of learned criteria leaves of each convolution, in the order they run.

    `anatomy` is of the model that the plan was made for. Pieces are filters; in a plan of stripes
    or columns they are those. Where blocks go, all filters of a convolution go or none.
    """
    plan.check(anatomy.model)
    sites = plan.made_by.get("sites")
    if not isinstance(sites, Mapping):
        message = (
            "the plan does not say which criterion each site has chosen; draw one that "
            "LearnedCriteria.finish, search_criteria or prune_by_learned_criteria has returned"
        )
        raise PlanError(message)
    family = str(plan.made_by.get("family", "channels"))
    site_of = _site_of(plan, anatomy, family, sites)
    fibres = plan.cut().fibres
    found: dict[str, Left] = {}
    for conv in anatomy.convs:
        key, site = conv.weight or conv.name, site_of(conv)
        if key in found:
            continue
        if family in ("stripes", "columns"):
            shape = plan.fingerprint.get(conv.weight, (conv.out_axis.size, conv.in_axis.size))
            of = shape[int(family == "columns")] * math.prod(conv.kernel)
            left = fibres[conv.weight].left if conv.weight in fibres else of
        else:
            of = conv.out_axis.size
            left = 0 if gone(plan.drops, key) else count(conv.out_axis, plan.counts)
        criterion = SEVERAL if site == SEVERAL else str(sites[site]["criterion"]) if site else ""
        found[key] = Left(conv.name or key, left, of, site, criterion)
    return tuple(found.values())


def _site_of(
    plan: Plan, anatomy: Anatomy, family: str, sites: Mapping[str, Any]
) -> Callable[[Conv], str]:
    """Return what names the site that chooses the pieces of a convolution; empty if none does."""
    if family in ("stripes", "columns"):
        return lambda conv: conv.name if conv.name in sites else ""
    if family == "blocks":
        inside = {p for b in find_blocks(anatomy).removable for p in b.parameters}
        return lambda conv: next(iter(sites)) if conv.weight in inside else ""
    by_group = {name: name for name in sites}
    for tie in plan.ties:
        first = next((name for name in tie if name in sites), None)
        by_group |= dict.fromkeys(tie, first) if first is not None else {}

    def site(conv: Conv) -> str:
        mine = {by_group[f.name] for f in leaves(conv.out_axis) if f.name in by_group}
        return mine.pop() if len(mine) == 1 else SEVERAL if mine else ""

    return site
