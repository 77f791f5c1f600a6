"""Scores from what the model holds, with no data run through it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.geometry import Geometry, geometries, kernels
from tonsor.criteria.registry import Registered
from tonsor.criteria.gather import row
from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError
from tonsor.families.channels import Part, parts
from tonsor.families.norms import scales
from tonsor.types import Group


def still_rows(anatomy: Anatomy, group: Group, found: Registered) -> tuple[list[Row], str]:
    """Return the rows of a group, and where there are none, why."""
    if found.needs == "scales":
        rows = [
            _row(part, found(part.of(_values(anatomy, part, found))))
            for part in scales(anatomy, group)
        ]
        return rows, "" if rows else "no BatchNorm with a scale runs along it"
    shown = _with_geometry(anatomy, group) if found.needs == "kernels" else parts(anatomy, group)
    rows: list[Row] = []
    for item in shown:
        part, geometry = item if isinstance(item, tuple) else (item, None)
        view = part.of(_values(anatomy, part, found))
        if geometry is None:
            rows.append(_row(part, found(view)))
        else:
            rows.append(_row(part, found(kernels(view, geometry), geometry)))
    return rows, "" if rows else "none of its weights is a convolution or linear layer"


def _with_geometry(anatomy: Anatomy, group: Group) -> Iterator[tuple[Part, Geometry]]:
    known = geometries(anatomy)
    for part in parts(anatomy, group):
        geometry = known.get(part.member.tensor)
        if geometry is not None:
            yield part, geometry.seen_from(part.made)


def _values(anatomy: Anatomy, part: Part, found: Registered) -> Tensor:
    tensor = anatomy.parameters[part.member.tensor]
    if tensor.is_meta and found.reads_weights:
        message = (
            f"'{part.member.tensor}' is on the meta device and has no values for '{found.name}' "
            "to look at. Load the weights, or plan with by='random'."
        )
        raise ScoreError(message)
    return tensor.detach()


def _row(part: Part, values: Tensor) -> Row:
    place = f"'{part.member.tensor}' along dimension {part.member.dim}"
    return row(values, made=part.made, where=place)
