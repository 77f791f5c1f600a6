"""Convolutions whose channels are their own, and the scores of those."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores, score
from tonsor.types import Conv, Leaf, Pin


def numbered(anatomy: Anatomy) -> list[Conv]:
    """Return the convolutions that have a number, the first has 1; those of 1x1 are shortcuts."""
    return [c for c in anatomy.convs if max(c.kernel) > 1]


def group_of(conv: Conv) -> str:
    """Name the group of a convolution's filters; empty where they are no group of their own."""
    return conv.out_axis.name if isinstance(conv.out_axis, Leaf) else ""


def makers(anatomy: Anatomy, group: str) -> list[str]:
    """Name the convolutions whose filters are the channels of a group."""
    return [c.name for c in anatomy.convs if group_of(c) == group]


def own_groups(anatomy: Anatomy) -> Iterator[str]:
    """Yield the groups that may be cut and are the filters of a single convolution."""
    for group in anatomy.prunable:
        if len(makers(anatomy, group.name)) == 1:
            yield group.name


def own_scores(anatomy: Anatomy, by: str | Scores, groups: Collection[str]) -> Scores:
    """Score some groups by the weights that make them, and no others, for norms are dear."""
    if isinstance(by, Scores):
        return by
    others = [g.name for g in anatomy.prunable if g.name not in groups]
    left = dict.fromkeys(others, Pin("keep", "it is left whole"))
    found = score(anatomy.pinned_also(left), by, combine="producer")
    why = dict.fromkeys(others, "it is left whole, so it was not scored")
    return Scores(found.values, found.by, {**why, **found.unscored})
