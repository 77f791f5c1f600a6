"""One product of matrices for many columns, of what the taps of those read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.surgery.shifts import CACHE, Pads, kind_of, out_sizes, reached

_FEW_PLACES = 16  # outputs of so many places or fewer are too small for a product of each sample


def multiplied(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, kernel: Sequence[int],
    stride: Sequence[int], dilation: Sequence[int], pads: Pads,
) -> Tensor:  # fmt: skip
    """Gather what is read from a view of the input, in parts of the batch that stay near.

    `taps` has the input and the place in the kernel of each column: `[1 + rank, column]`.
    """
    sizes = out_sizes(x.shape[2:], kernel, stride, dilation, pads)
    kind = kind_of(x)
    x, weight = _padded(x, pads).to(kind).contiguous(), weight.to(kind)
    first = weight.new_zeros(1) if bias is None else bias.to(kind)
    seen, starts = _windows(x, sizes, stride), _starts(taps, x.shape[2:], dilation)
    followed = torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, first))
    shape = (len(x), weight.shape[1], *sizes)
    # What is followed for gradients can't be written into one tensor, and is put together.
    out = None if followed else x.new_empty(shape)
    found = list[Tensor]()
    product_of = _at_once if math.prod(sizes) <= _FEW_PLACES else _one_by_one
    many = _many(x, weight, sizes)
    for begin in range(0, len(x), many):
        part = seen[begin : begin + many]
        found.append(product_of(part, starts, weight, first, None if out is None else out[begin:]))
    if out is not None:
        return out
    if not found:
        return reached(x.new_zeros(shape), x, weight)
    return found[0] if len(found) == 1 else torch.cat(found)
