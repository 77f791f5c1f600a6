"""Going on from an earlier plan of the same model: what it has left of each group."""

from __future__ import annotations

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError
from tonsor.plans import Plan
from tonsor.select.rank import Alive
from tonsor.surgery.ties import Tie, broken


def left_by(anatomy: Anatomy, after: Plan | None) -> dict[str, Alive]:
    """Return which pieces an earlier plan keeps, for each group that it cuts.

    The plan must be one of this very model, in its coordinates, and hold its ties.
    """
    if after is None:
        return {}
    after.check(anatomy.model)
    if after.drops:
        message = (
            f"the earlier plan removes blocks ({after.drops[0].name}, ...), and what is coupled "
            "may be other without them. Apply it, prune what is left, and get the plan of both as "
            "later.rebase(earlier)"
        )
        raise PlanError(message)
    if after.fibres:
        message = (
            "the earlier plan cuts convolutions into stripes or columns, and channels go before "
            "those: plan channels first, then the others with after=that plan"
        )
        raise PlanError(message)
    alive = kept_by(anatomy, after)
    every = {g.name: g.size for g in anatomy.groups}
    torn = broken(ties_of(anatomy, every=True), after.counts, every)
    if torn is not None:
        message = f"the earlier plan can't be gone on from: {torn}"
        raise PlanError(message)
    return alive


def kept_by(anatomy: Anatomy, after: Plan) -> dict[str, Alive]:
    """Return which indices a plan of the same model keeps of each group that it cuts."""
    alive: dict[str, Alive] = {}
    sizes = after.sizes
    for name, kept in after.keep.items():
        group = anatomy.by_name.get(name)
        if group is None or group.size != sizes[name]:
            message = (
                f"the earlier plan cuts '{name}', of {sizes[name]}, which is no group here; was "
                "the model inspected with the same options and example input for it?"
            )
            raise PlanError(message)
        alive[name] = np.zeros(group.size, dtype=np.bool_)
        alive[name][list(kept)] = True
    return alive


def ties_of(anatomy: Anatomy, *, every: bool = False) -> tuple[Tie, ...]:
    """Say of each tie how many indices its groups lose with every step.

    Without `every`, only of those that may be cut.
    """
    ties: dict[int, dict[str, int]] = {}
    for group in anatomy.groups if every else anatomy.prunable:
        if group.tie is not None:
            ties.setdefault(group.tie, {})[group.name] = group.unit
    return tuple(ties.values())
