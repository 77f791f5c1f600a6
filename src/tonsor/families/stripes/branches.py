"""Blocks that no longer say anything once a convolution in them has no stripe.

A branch all of whose ways lead through a convolution without stripes is the same for every input,
and its block becomes its shortcut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tonsor.anatomy import Anatomy
from tonsor.drops import Drop
from tonsor.errors import SelectionError
from tonsor.families.blocks.block import Block
from tonsor.families.blocks.ends import scaled_by
from tonsor.families.blocks.find import find_blocks
from tonsor.families.fibres import FibreLayer
from tonsor.graph.spots import Spots
from tonsor.surgery.dropping import gone
from tonsor.types import refs


@dataclass(frozen=True, slots=True)
class Branch:
    """A block that becomes its shortcut once any of some layers has no stripe.

    `ends` are parameters that make the branch be zero if they are; empty where none are known.
    """

    drop: Drop
    layers: frozenset[str]
    ends: tuple[str, ...]


def branches(anatomy: Anatomy, layers: Sequence[FibreLayer]) -> Iterator[Branch]:
    """Find the blocks that hang on layers."""
    try:
        blocks = find_blocks(anatomy)
    except SelectionError:  # of an exported model nobody knows the calls
        return
    spots = Spots(anatomy.graph)
    for block in blocks.removable:
        if block.drop is None or not block.drop.zeroed:
            continue
        found = [(spots.index(s), s.argument) for s in block.drop.zeroed]
        ends = [(i, anatomy.graph.ops[i][argument].value) for i, argument in found if i is not None]
        on_the_way = frozenset(
            x.name for x in layers if gone([block.drop], x.weight)
            and not _reached(anatomy, block, ends, x.name)
        )  # fmt: skip
        if on_the_way:
            silent = [scaled_by(anatomy, value) for _, value in ends]
            known = tuple(n for names in silent for n in names) if all(silent) else ()
            yield Branch(block.drop, on_the_way, known)


def _reached(
    anatomy: Anatomy, block: Block, ends: Sequence[tuple[int, int]], layer: str
) -> bool:  # fmt: skip
    """Whether a way leads from what goes into a block to its end that is not through a layer.

    `ends` are the operators that add the branch, each with the value that it adds.
    """
    graph = anatomy.graph
    (call,) = [c for c in graph.calls if c.module == block.modules[0]]
    seen = set(refs((*call.args, *call.kwargs.values())))
    for op in graph.ops[call.first : max((i for i, _ in ends), default=call.stop)]:
        if op.module != layer and seen & set(op.inputs):
            seen |= {v for v in op.outputs if v is not None}
    return any(value in seen for _, value in ends)
