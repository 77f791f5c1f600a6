"""The scales and shifts of the BatchNorms that a group runs through."""

from __future__ import annotations

from collections.abc import Container, Iterator

from tonsor.anatomy import Anatomy
from tonsor.cost.ops import BATCH_NORMS
from tonsor.families.channels import Part, vectors
from tonsor.types import Group, Ref


def scales(anatomy: Anatomy, group: Group, known: Container[str] | None = None) -> Iterator[Part]:
    """Yield the places of the scales of BatchNorms; `known` are those of the whole model."""
    known = scale_and_shift(anatomy) if known is None else known
    for part in vectors(anatomy, group):
        if part.member.tensor in known:
            yield part


def scale_and_shift(anatomy: Anatomy) -> dict[str, str]:
    """Return the name of the shift for the name of every scale of a BatchNorm."""
    graph = anatomy.graph
    found: dict[str, str] = {}
    for op in graph.ops:
        if op.name in BATCH_NORMS and isinstance(op.get("weight"), Ref):
            shift = op.get("bias")
            name = graph.name_of.get(shift.value, "") if isinstance(shift, Ref) else ""
            found[graph.name_of.get(op["weight"].value, "")] = name
    found.pop("", None)
    return found
