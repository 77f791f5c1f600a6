"""Similarity: how much a block changes what runs through it."""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor

from tonsor.criteria.blocks.look import Run, look, repeated
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.pooled import channel_dim
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import ScoreError
from tonsor.families.blocks.block import Block, shape_text


def cosine(material: Material, *, angular: bool = False) -> BlockScores:
    """One minus the cosine of what goes into a block and what comes out (block influence).

    Maps are compared as a whole, sequences token by token, and the mean is over all that was
    shown; targets are not needed. With `angular` it is the angle between the two, from 0 to 1.
    """
    material.check_runs("cosine")
    unscored = {
        b.name: why
        for b in material.blocks
        if (why := _not_alike(b) or repeated(material.anatomy, b))
    }
    alike = {b.name for b in material.blocks if b.name not in unscored}
    if not alike:
        name, why = next(iter(unscored.items()))
        message = (
            f"'cosine' can't judge any block of this model; '{name}', for one: {why}. Choose "
            "another criterion."
        )
        raise ScoreError(message)
    channel = {b.name: channel_dim(material.anatomy, b) for b in material.blocks}
    totals: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)

    def see(run: Run, block: Block, given: Tensor | None, result: Tensor) -> None:
        if given is None:
            return
        if given.shape != result.shape:
            unscored[block.name] = (
                f"on this data it turns {shape_text(given.shape)} into {shape_text(result.shape)}"
            )
            return
        by_token = result.dim() == 3 and channel[block.name] == 2
        start = 2 if by_token else 1
        found = distances(given.flatten(start), result.flatten(start), angular=angular)
        totals[block.name] += float(found.sum())
        counts[block.name] += found.numel()

    samples = look(material, material.shown("cosine"), see, about="comparing blocks", inputs=alike)
    values = {
        b.name: totals[b.name] / counts[b.name]
        for b in material.blocks
        if counts.get(b.name) and b.name not in unscored
    }
    for name in alike - values.keys():
        unscored.setdefault(name, "it was not met in any run")
    by = "cosine:angular=True" if angular else "cosine"
    return BlockScores(values, by, unscored, {"samples": samples})


def distances(one: Tensor, other: Tensor, *, angular: bool = False) -> Tensor:
    """Return one minus the cosine of vectors, or their angle divided by 180 degrees.

    Two vectors of zeros are the same; one alone is at a right angle to everything.
    """
    a, b = (t if t.dtype == torch.float64 else t.float() for t in (one, other))
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    cosines = (a * b).sum(-1) / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    same = (a == b).all(-1)
    cosines = torch.where(same, 1.0, cosines.clamp(-1, 1))
    return torch.acos(cosines) / math.pi if angular else 1 - cosines


def _not_alike(block: Block) -> str:
    """Say why what goes into a block can't be compared with what comes out, if so."""
    if not block.takes:
        return "nothing that goes in has to do with what comes out"
    if block.kind == "branch":
        return "what it returns is only added to what runs past it"
    if block.input_shape != block.output_shape:
        before, after = shape_text(block.input_shape), shape_text(block.output_shape)
        return f"it turns {before} into {after}"
    return ""
