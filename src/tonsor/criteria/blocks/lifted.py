"""Criteria of pieces lifted to blocks: the mean over all that the weights of a block make.

All filters count, also those whose result runs on through the whole stage of a residual network
and which no cut could reach. Criteria of BatchNorms look at all scales in the block, those of
maps as they are read at what the weights of the block read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.criteria.blocks.filters import by_filter, holders
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.criteria.registry import Registered
from tonsor.criteria.rows import Row
from tonsor.criteria.score import gathered
from tonsor.errors import ScoreError
from tonsor.families.channels import parts

_SCALES = ("scales", "scale_gradients")


def lift(
    material: Material, found: Registered, *, inner: bool = False, squared: bool = False
) -> BlockScores:
    """Score blocks by the mean of a criterion over their filters.

    With `inner`, only what no weight outside the block makes as well is counted: not what is
    added to a residual stream, as gates between the weights of a block would see it. `squared`
    squares the score of each filter first, which makes `l2` the sum of squared weights.
    """
    anatomy = by_filter(material.anatomy, material.blocks)
    holder = holders(anatomy, material.blocks)
    rows, reasons, samples = gathered(
        anatomy, found, makers=True, batches=material.batches, loss=material.loss,
        at_most=material.at_most, seed=material.seed, quiet=material.quiet,
    )  # fmt: skip
    every: dict[str, list[np.ndarray]] = {}
    for block, row in _kept(anatomy, found, rows, holder, inner=inner):
        values = (row.to_unit() if found.unit else row).values
        every.setdefault(block, []).append(values**2 if squared else values)
    order = [b.name for b in material.blocks]
    scores = {n: float(np.concatenate(every[n]).mean()) for n in order if n in every}
    unscored = {n: _why(anatomy, n, holder, reasons, inner) for n in order if n not in scores}
    if not scores:
        why = "; ".join(dict.fromkeys(unscored.values()))
        message = f"'{found}' can't judge any block of this model: {why}. Choose another criterion."
        raise ScoreError(message)
    return BlockScores(scores, str(found), unscored, {"samples": samples} if samples else {})


def _kept(
    anatomy: Anatomy,
    found: Registered,
    rows: Mapping[str, list[Row]],
    holder: Mapping[int, str],
    *,
    inner: bool,
) -> Iterator[tuple[str, Row]]:
    """Yield the rows that count, each with the block it lies in."""
    everywhere = found.where == "read" or found.needs in _SCALES
    for name, mine in rows.items():
        makers = {
            holder.get(id(anatomy.parameters[p.member.tensor]))
            for p in (parts(anatomy, anatomy.by_name[name]) if inner else ())
            if p.made
        }
        for row in mine:
            block = holder.get(id(anatomy.parameters[row.tensor]))
            if block is None or (inner and makers != {block}):
                continue
            if row.made or everywhere:
                yield block, row


def _why(
    anatomy: Anatomy, block: str, holder: Mapping[int, str], reasons: Mapping[str, str], inner: bool
) -> str:
    """Say why a block has no score."""
    for group in anatomy.groups:
        if group.name in reasons and any(
            holder.get(id(anatomy.parameters.get(m.tensor))) == block for m in group.members
        ):
            return reasons[group.name]
    return f"nothing in it is made {'by it alone' if inner else 'by its weights'}"
