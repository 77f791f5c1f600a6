"""Whether a model is the same without what is taken to be read by nothing any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tonsor.anatomy import Anatomy
from tonsor.errors import TonsorError
from tonsor.fibres import Fibres
from tonsor.plans import Plan
from tonsor.surgery.proof import prove


def same_without(
    anatomy: Anatomy, plan: Plan, before: Mapping[str, tuple[int, ...]], left: Mapping[str, Fibres]
) -> bool:
    """Whether the model computes the same without the channels that have followed columns.

    It is compared with the original in which these columns are zero and those channels are not,
    while the proof of a plan has both zero. `before` is what else is cut of channels, `left` the
    columns that stay of the weights that have lost any, be it with an input as a whole.
    """
    if dict(plan.keep) == dict(before) or any(t.is_meta for t in anatomy.parameters.values()):
        return True
    try:
        slim = plan.apply(anatomy.model, verify=False)
        columns = replace(plan, keep=before, fibres={**plan.fibres, **left})
        prove(anatomy.model, slim, columns.cut(), anatomy.inputs)
    except TonsorError:
        return False
    return True
