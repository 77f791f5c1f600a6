"""Fibres taken out of a weight, and put back: `[fibre, ...]` from `[filter, input, *kernel]`.

They are held position after position of the kernel, and at each position in the order of filters,
if they are stripes, or of inputs, if they are columns. A mask is `[filter or input, position]`.
With groups, a column is that of the filters that read its input.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tonsor.fibres import FibreMask, Kind


def fibres_of(kind: Kind, weight: Tensor, mask: FibreMask) -> Tensor:
    """Take the fibres of a mask out of a weight, or out of what has its shape.

    >>> weight = torch.arange(12.0).view(2, 3, 2)  # 2 filters, 3 inputs, 2 positions
    >>> fibres_of("columns", weight, np.array([[True, False], [False, True], [False, False]]))
    tensor([[0., 6.],
            [3., 9.]])
    """
    rows = _seen(kind, weight.detach(), len(mask)).flatten(1, -2)
    positions, index = (torch.from_numpy(a).to(weight.device) for a in np.nonzero(mask.T))
    return rows[index, positions].contiguous()


def write_fibres_(kind: Kind, weight: Tensor, fibres: Tensor, mask: FibreMask) -> None:
    """Write fibres to where they were taken from: the way back from `fibres_of`."""
    seen = _seen(kind, weight.detach(), len(mask))
    rows = seen.flatten(1, -2).clone()
    positions, index = (torch.from_numpy(a).to(weight.device) for a in np.nonzero(mask.T))
    rows[index, positions] = fibres.detach().to(rows)
    weight.detach().copy_(_whole(kind, rows.view(seen.shape), weight.shape[1]))


def mask_fibres_(kind: Kind, weight: Tensor, mask: FibreMask) -> None:
    """Set the fibres that are not in a mask to zero."""
    stays = torch.from_numpy(mask).to(weight.device).unsqueeze(-1)
    shape = (*_seen(kind, weight.detach(), len(mask)).shape[:-1], 1)
    stays = stays.view(shape).expand(*shape[:-1], _others(kind, weight, len(mask)))
    weight.detach().masked_fill_(~_whole(kind, stays, weight.shape[1]), 0)


def dense_of(
    kind: Kind, fibres: Tensor, place: Tensor, kept: Tensor, others: int
) -> Tensor:  # fmt: skip
    """Return the weight whose other fibres are zero.

    `place` says where each fibre goes among all of them, `kept`, which has the shape of `[filter
    or input, *kernel]`, how many there are; `others` is the second dimension of the weight.
    """
    rows = fibres.new_zeros(kept.numel(), fibres.shape[1]).index_copy(0, place, fibres)
    return _whole(kind, rows.view(*kept.shape, -1), others)


def _others(kind: Kind, weight: Tensor, rows: int) -> int:
    """How many weights a fibre has."""
    if kind == "stripes":
        return weight.shape[1]
    return weight.shape[0] // _groups(weight, rows)


def _groups(weight: Tensor, rows: int) -> int:
    return rows // weight.shape[1] if weight.shape[1] else 1


def _seen(kind: Kind, weight: Tensor, rows: int) -> Tensor:
    """Show a weight as `[filter or input, *kernel, ...]`."""
    if kind == "stripes":
        return weight.movedim(1, -1)
    groups = _groups(weight, rows)
    return weight.unflatten(0, (groups, weight.shape[0] // groups)).movedim(1, -1).flatten(0, 1)


def _whole(kind: Kind, seen: Tensor, inputs: int) -> Tensor:
    """Show what `_seen` has shown as a weight again, of so many inputs."""
    if kind == "stripes":
        return seen.movedim(-1, 1)
    groups = seen.shape[0] // inputs if inputs else 1
    return seen.unflatten(0, (groups, inputs)).movedim(-1, 1).flatten(0, 1)
