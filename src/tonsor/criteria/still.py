"""Scores from what the model holds, with no data run through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import row
from tonsor.criteria.geometry import geometries, kernels
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.errors import ScoreError
from tonsor.families.channels import Part, parts
from tonsor.families.norms import scale_and_shift, scales
from tonsor.types import Group

Shown = Iterator[tuple[Part, tuple[object, ...]]]


def still_rows(
    anatomy: Anatomy, found: Registered, *, makers: bool = False
) -> tuple[dict[str, list[Row]], dict[str, str]]:
    """Return the rows of all groups that may be cut, and why some have none.

    With `makers`, places that only read are not scored where there are others.
    """
    shown, why = _looker(anatomy, found)
    rows: dict[str, list[Row]] = {}
    reasons: dict[str, str] = {}
    for group in anatomy.prunable:
        mine = [_row(p, found(*given)) for p, given in shown(group) if p.made] if makers else []
        mine = mine or [_row(p, found(*given)) for p, given in shown(group)]
        if mine:
            rows[group.name] = mine
        else:
            reasons[group.name] = why
    return rows, reasons


def _looker(anatomy: Anatomy, found: Registered) -> tuple[Callable[[Group], Shown], str]:
    """What shows a criterion the places of a group, and what it means if there are none."""

    def view(part: Part) -> Tensor:
        return part.of(_values(anatomy, part, found))

    if found.needs == "scales":
        known = scale_and_shift(anatomy)
        return (
            lambda group: ((p, (view(p),)) for p in scales(anatomy, group, known)),
            "no BatchNorm with a scale runs along it",
        )
    if found.needs == "kernels":
        forms = geometries(anatomy)

        def kernel(group: Group) -> Shown:
            for part in parts(anatomy, group):
                form = forms.get(part.member.tensor)
                if form is not None:
                    yield part, (kernels(view(part), form), form.seen_from(part.made))

        return kernel, "none of its weights is a convolution or linear layer"
    return lambda group: ((p, (view(p),)) for p in parts(anatomy, group)), "it has no weights"


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
    return row(values, made=part.made, where=place, tensor=part.member.tensor)
