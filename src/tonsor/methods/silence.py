"""What has to be zero with fibres that are gone, so that cutting what follows changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tonsor.drops import Drop
from tonsor.families.channels import vectors
from tonsor.families.following import Masks
from tonsor.select.fibres.frame import Frame
from tonsor.surgery.dropping import joined_drops


def silenced(
    frame: Frame, masks: Masks, before: Sequence[Drop] = ()
) -> list[tuple[nn.Parameter, Tensor]]:
    """Return what scales and shifts dead filters and branches, each with its mask.

    `before` are blocks that an earlier plan has removed. Inputs that nothing reads any more need
    no silence, whatever they say.
    """
    if frame.layers.kind == "columns":
        return []
    anatomy, following = frame.anatomy, frame.following
    found: dict[int, tuple[nn.Parameter, Tensor]] = {}

    def mask_of(name: str) -> Tensor:
        tensor = anatomy.parameters[name]
        kept = found.setdefault(id(tensor), (tensor, torch.ones_like(tensor.detach())))
        return kept[1]

    dead_branches = following.dead_branches(masks)
    for name in (n for b in dead_branches for n in b.ends):
        mask_of(name).zero_()
    drops = joined_drops(before, [b.drop for b in dead_branches])
    for group, alive in following.alive(masks, drops).items():
        for part in vectors(anatomy, anatomy.by_name[group]):
            dead = torch.from_numpy(np.flatnonzero(~alive))
            mask = mask_of(part.member.tensor)
            part.of(mask).index_fill_(0, dead.to(mask.device), 0)
    return list(found.values())


def multiply_(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Multiply tensors by their masks, in place."""
    if pairs:
        torch._foreach_mul_([t for t, _ in pairs], [m for _, m in pairs])  # pyright: ignore[reportPrivateImportUsage]
