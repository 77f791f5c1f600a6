"""The pools of a family."""

from __future__ import annotations

from typing import get_args

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.methods.pools.base import Family, Pools, Searched, Wanted
from tonsor.methods.pools.blocks import BlockPools
from tonsor.methods.pools.channels import ChannelPools
from tonsor.methods.pools.drawn import Held, held_already
from tonsor.methods.pools.fibres import FibrePools
from tonsor.methods.pools.filters import FilterPools


def pools_of(anatomy: Anatomy, family: Family | Searched, wanted: Wanted) -> Pools:
    """Return the pools of a family, whose parameters are masked from then on."""
    if family not in get_args(Searched):
        message = f"family must be one of {', '.join(get_args(Searched))}, got {family!r}"
        raise SelectionError(message)
    if family in ("columns", "stripes"):
        return FibrePools(anatomy, family, wanted)
    if family == "filters":
        return FilterPools(anatomy, wanted)
    kind = ChannelPools if family == "channels" else BlockPools
    return kind(anatomy, wanted)


def held_of(pools: Pools) -> list[Held]:
    """Return what is masked, each once, in the order in which that began."""
    return list({id(h): h for some in pools.held.values() for h in some}.values())


def check_bare(anatomy: Anatomy) -> None:
    """Refuse a model that is masked already."""
    if (path := held_already(anatomy.model)) is not None:
        message = (
            f"'{path}' is masked already, by another method on this model; call finish() or "
            "release() on that one first"
        )
        raise SelectionError(message)


def check_train(held: list[Held]) -> None:
    """Refuse parameters that do not train."""
    for one in held:
        if not one.weight.requires_grad:
            message = (
                f"a parameter '{one.name}' of {type(one.module).__name__} is frozen, so that its "
                "rank would never change; let it train, or keep=[...] its layer"
            )
            raise SelectionError(message)
