"""Which channels only filters make whose stripes may go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tonsor.anatomy import Anatomy
from tonsor.families.channels import parts
from tonsor.types import Axis


def makers(
    anatomy: Anatomy, layers: Mapping[str, str]
) -> Iterator[tuple[str, list[tuple[str, Axis]]]]:
    """Yield the groups that only filters of these layers make, with the layers.

    `layers` has the name of a layer for its weight. Groups that lose indices in step with others
    are left out.
    """
    for group in anatomy.prunable:
        if group.tie is not None or group.unit != 1:
            continue
        made = [p.member for p in parts(anatomy, group) if p.made]
        if made and all(m.dim == 0 and m.tensor in layers for m in made):
            yield group.name, [(layers[m.tensor], m.axis) for m in made]
