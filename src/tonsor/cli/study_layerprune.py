"""The LayerPrune study on the command line: of what size it is for the network at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tonsor.cli.choose_options import Study
from tonsor.errors import SelectionError
from tonsor.families.blocks.find import find_blocks
from tonsor.study.base import Base
from tonsor.study.layerprune import LayerPruneStudy
from tonsor.study.layerprune_draw import draw
from tonsor.study.layerprune_run import run_layerprune
from tonsor.study.layerprune_tell import page
from tonsor.study.schedules import shared_groups


def layerprune(
    command: Study, base: Base, seeds: tuple[int, ...]
) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Run what is missing of the study; return the results, and the page that tells them."""
    if command.kept:
        message = "--kept has no meaning for layerprune, which removes blocks by number: --most 4"
        raise SelectionError(message)
    chosen = layerprune_study(base, command.by, command.most, seeds)
    found = run_layerprune(chosen, command.out, processes=command.processes, quiet=command.quiet)
    draw(chosen, found, command.out)
    text = page(chosen, found)
    return {**found.scores, **found.cut, **found.latency, **found.matched}, text


def layerprune_study(
    base: Base, by: tuple[str, ...], most: int, seeds: tuple[int, ...]
) -> LayerPruneStudy:
    """Make the study as large as the network allows, and no larger than is asked for.

    The first criterion that is named is the one that all numbers of blocks are removed by.
    """
    anatomy = base.anatomy(base.model())
    blocks = find_blocks(anatomy).removable
    if not 1 <= most <= len(blocks):
        message = (
            f"--most is a number from 1 to {len(blocks)}, as many blocks of {base.network} may "
            f"go; got {most}"
        )
        raise SelectionError(message)
    shared = set(shared_groups(anatomy))
    free = [g.size for g in anatomy.prunable if g.name not in shared]
    usual = LayerPruneStudy(base=base)
    return LayerPruneStudy(
        base=base,
        by=by or usual.by,
        main=by[0] if by else usual.main,
        most=most,
        others=tuple(n for n in usual.others if n <= most) or (most,),
        tuned_others=tuple(n for n in usual.tuned_others if not by or n in by[1:]),
        filters=tuple(n for n in usual.filters if n <= sum(free) - len(free)) or (sum(free) // 4,),
        scratch=min(usual.scratch, most),
        deep=tuple(n for n in usual.deep if usual.most <= most < n <= len(blocks)),
        seeds=seeds,
    )
