"""From masks of groups to masks of parameters, in a few operations that can be derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tonsor.families.channels import Part, views


class ChannelMasks:
    """Spreads one number for each channel over the parameters that are masked by it.

    A parameter that several groups run through is multiplied by all of them. What stands where is
    looked up once, so that all masks are one selection and a few products.
    """

    def __init__(
        self, sizes: Sequence[int], places: Sequence[Sequence[Part]],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:  # fmt: skip
        self._ranks = {name: len(shape) for name, shape in shapes.items()}
        one, offset = sum(sizes), 0  # the last number of all is a 1, for what no group masks
        self._columns: list[tuple[str, int]] = []
        found: list[Tensor] = []
        for size, mine in zip(sizes, places, strict=True):
            numbers = torch.arange(offset, offset + size)
            for part in mine:
                tensor, dim = part.member.tensor, part.member.dim
                along = torch.full((shapes[tensor][dim],), one)
                view = list(views(along, part.member.axis, part.group))[part.place]
                view.copy_(numbers.view(-1, *(1,) * (view.dim() - 1)).expand_as(view))
                self._columns.append((tensor, dim))
                found.append(along)
            offset += size
        self._lengths = [len(f) for f in found]
        self._numbers = torch.cat(found)

    def __call__(self, stays: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return for each parameter a mask that can be broadcast."""
        flat = torch.cat([*(s.double() for s in stays), torch.ones(1, dtype=torch.float64)])
        spread = flat.index_select(0, self._numbers).split(self._lengths)
        found: dict[str, Tensor] = {}
        for (tensor, dim), values in zip(self._columns, spread, strict=True):
            view = values.view(*(-1 if d == dim else 1 for d in range(self._ranks[tensor])))
            found[tensor] = found[tensor] * view if tensor in found else view
        return found
