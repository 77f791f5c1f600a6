"""Find the blocks of a model in its recorded run, whatever its classes are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.families.blocks.block import Block, Blocks
from tonsor.families.blocks.branch import Branches
from tonsor.families.blocks.flow import Flow
from tonsor.families.blocks.plain import Plain
from tonsor.families.blocks.residual import Residuals
from tonsor.families.blocks.shortcut import ADD
from tonsor.families.blocks.tree import Node, Tree
from tonsor.graph.spots import Spots

Level = Literal["block", "branch"]


def find_blocks(anatomy: Anatomy, *, level: Level = "block") -> Blocks:
    """Return all blocks of a model: those that may go, and those that may not with the reason.

    A block is a module around whose branches a shortcut leads (a residual block, a layer of a
    transformer), or, outside of these, a weight with the norm and the activation behind it.
    With `level="branch"` each branch of a residual block is a block of its own, such as the
    attention of a layer.
    """
    if not anatomy.graph.calls:
        message = (
            "blocks are found in a recorded run of the model's own code; inspect it without "
            'mode="export"'
        )
        raise SelectionError(message)
    flow, tree, spots = Flow(anatomy.graph), Tree(anatomy.graph), Spots(anatomy.graph)
    residuals, branches = Residuals(flow, tree, spots), Branches(flow, tree, spots)
    found: list[Block] = []
    for block, adds in _modules(tree.root, residuals, branches):
        fine = list(branches.blocks(adds)) if level == "branch" else []
        found += fine if len(fine) == len(adds) > 0 else [block]
    covered = {i for b in found for m in [_span(tree, b)] for i in m}
    own = [o.index for o in anatomy.graph.ops if o.name in ADD and o.index not in covered]
    for block in branches.blocks(own):
        if covered.isdisjoint(block.ops):
            found.append(block)
            covered |= set(block.ops)
    rest = [n.call for n in tree.root.below() if not n.inner and n.call.first not in covered]
    plain = list(Plain(anatomy, flow, tree, spots).blocks(rest))
    if found:  # what comes before and after the blocks of a deep network is no layer among layers
        plain = [b for b in plain if b.removable]
    found += plain
    return Blocks(tuple(sorted(found, key=lambda b: b.ops[0] if b.ops else -1)))


def _modules(
    node: Node, residuals: Residuals, branches: Branches
) -> Iterator[tuple[Block, list[int]]]:
    """Yield the modules that are blocks, with the operators that add their branches."""
    for kid in node.inner:
        found = residuals.route(kid)
        if found is not None:
            adds = sorted(found[1].adds)
            if not residuals.is_stack(kid) and not branches.repeated(kid, adds):
                yield residuals.block(kid), adds
                continue
        elif (fixed := residuals.transition(kid)) is not None:
            yield fixed, []
            continue
        yield from _modules(kid, residuals, branches)


def _span(tree: Tree, block: Block) -> range:
    """Return the operators between the first and the last of a block's module."""
    calls = [n.call for n in tree.root.below() if n.call.module in block.modules]
    return range(calls[0].first, calls[-1].stop)
