"""What is known after a block: its result, pooled to a vector of about the same length for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import exact
from tonsor.families.blocks.block import Block
from tonsor.types import Ref, leaves

_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d,
}  # fmt: skip


def pool_size(channels: int, size: int, dims: int = 2) -> int:
    """Return to how many positions along each dimension a map is pooled, for about `size` in all.

    >>> [pool_size(c, 2048) for c in (16, 32, 64)], [pool_size(c, 512) for c in (64, 128, 512)]
    ([11, 8, 6], [3, 2, 1])
    """
    return max(1, round((size / channels) ** (1 / dims)))


def pooled(tensor: Tensor, channel: int, size: int) -> Tensor:
    """Pool what a block returns to one vector a sample, of about `size` numbers.

    Maps are averaged over a grid of positions, sequences over stretches of tokens; what has no
    more positions than the grid is taken as it is.
    """
    maps = tensor.movedim(channel, 1)
    maps = maps if maps.dtype == torch.float64 else maps.float()
    dims = maps.dim() - 2
    if dims in _POOLS:
        grid = pool_size(maps.shape[1], size, dims)
        maps = _POOLS[dims](maps, [min(grid, n) for n in maps.shape[2:]])
    return exact(maps.flatten(1))


def channel_dim(anatomy: Anatomy, block: Block) -> int:
    """Return which dimension of a block's result holds its channels.

    It is the one that a weight of the model has made or will read; where that is not to be seen,
    the second of a map, and the last of a sequence.
    """
    rank = len(block.output_shape)
    guess = 1 if rank > 3 else rank - 1
    value = _result(anatomy, block)
    if value is None:
        return guess
    known = anatomy.by_name
    sizes = {
        dim: axis.size
        for dim, axis in enumerate(anatomy.solution.axes[value])
        if dim and any(leaf.name in known for leaf in leaves(axis))
    }
    return guess if guess in sizes else max(sizes, key=sizes.__getitem__, default=guess)


def _result(anatomy: Anatomy, block: Block) -> int | None:
    """Return the value that a block returns in the recorded run."""
    found: Any = None
    for call in anatomy.graph.calls:
        if call.module == block.modules[-1]:
            found = call.out
    for step in block.gives:
        found = None if found is None else found[step]
    return found.value if isinstance(found, Ref) else None
