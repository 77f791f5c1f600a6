"""Ranking among likes: every class of groups of the same structure gives the same share.

Scores of different structures don't compare: a channel of a residual stream meets many large
weights, one inside a block few. So pieces are ranked only against pieces of groups that are built
alike, and all classes are cut in step (Fang et al. 2024, "Isomorphic Pruning for Vision Models").
Where all groups are alike this is the global ranking, and where no two are, the same share of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.families.channels import parts, vectors
from tonsor.select.rank import Array, Lane, ordered
from tonsor.types import Group


def likeness(anatomy: Anatomy, groups: Sequence[Group]) -> Hashable:
    """Return what is equal for groups, or ties of groups, of the same structure.

    That is their kind, size and unit, and how often they run through which parameters: whether
    these make the piece or read it, their shapes, and the dimension that the group lies along.
    """
    return frozenset(Counter(_structure(anatomy, g) for g in groups).items())


def _structure(anatomy: Anatomy, group: Group) -> Hashable:
    places = {
        (part.member.tensor, part.member.dim, part.place): (
            part.made,
            part.member.dim,
            tuple(anatomy.parameters[part.member.tensor].shape),
        )
        for part in (*parts(anatomy, group), *vectors(anatomy, group))
    }
    return group.kind, group.size, group.unit, frozenset(Counter(places.values()).items())


def share_alike(lanes: Sequence[Lane], classes: Sequence[Hashable]) -> list[Lane]:
    """Give every step as its key the share of its class that is gone after it."""
    owners, order = ordered(lanes)
    removed = np.concatenate([np.zeros(0), *(_pieces(x)[:-1] - _pieces(x)[1:] for x in lanes)])
    numbers = {c: i for i, c in enumerate(dict.fromkeys(classes))}
    mine = np.array([numbers[c] for c in classes], dtype=np.int64)
    keys = np.zeros(len(owners))
    for number in range(len(numbers)):
        members = [x for x, n in zip(lanes, mine, strict=True) if n == number]
        whole = sum(len(o) for x in members for o in x.orders)
        gone = whole - sum(float(_pieces(x)[0]) for x in members)
        steps = order[mine[owners[order]] == number]
        keys[steps] = (gone + np.cumsum(removed[steps])) / whole
    ends = np.cumsum([len(x.keys) for x in lanes])[:-1]
    return [replace(x, keys=k) for x, k in zip(lanes, np.split(keys, ends), strict=True)]


def _pieces(lane: Lane) -> Array:
    """Return how many pieces of all its groups stay at each step."""
    return np.stack(lane.kept).sum(axis=0).astype(np.float64)
