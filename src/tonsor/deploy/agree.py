"""Whether two ways to compute the same do agree, as far as numbers of a type can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
_TF32 = 5e-3  # float32 that is rounded to 10 bits when it is multiplied
_NOTHING = 1e-7  # a difference that is none, where all numbers are zero


def apart(got: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, over the largest number that is wanted.

    >>> round(apart(torch.tensor([1.0, 2.2]), torch.tensor([1.0, 2.0])), 3)
    0.1
    """
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if not got.numel():
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return 0.0 if torch.equal(got, wanted) else float("inf")
    a, b = _wide(got), _wide(wanted)
    finite = torch.isfinite(b)
    # Where no number is wanted, the same must come out: NaN too.
    if not torch.equal(_plain(a[~finite]), _plain(b[~finite])):
        return float("inf")
    if not finite.any():
        return 0.0
    a, b = a[finite], b[finite]
    difference = float((a - b).abs().max())
    if difference != difference:
        return float("inf")
    return difference / max(float(b.abs().max()), _NOTHING)


def agree(got: Tensor, wanted: Tensor) -> bool:
    """Whether two tensors are the same but for rounding."""
    return apart(got, wanted) <= _limit(wanted)


def _limit(wanted: Tensor) -> float:
    rounded = wanted.is_cuda and wanted.dtype is torch.float32 and _by_tf32()
    return _TF32 if rounded else _TOLERANCE.get(wanted.dtype, 0.0)


def _by_tf32() -> bool:
    cudnn: Any = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32"


def outputs_agree(got: Any, wanted: Any) -> bool:
    """Whether two outputs of a model, of any structure, are the same but for rounding."""
    mine, its = pytree.tree_leaves(got), pytree.tree_leaves(wanted)
    return len(mine) == len(its) and all(_same(a, b) for a, b in zip(mine, its, strict=True))


def worst(got: Any, wanted: Any) -> float:
    """Return how far two outputs are apart, where they are farthest."""
    found = [apart(a, b) for a, b in _tensors(got, wanted)]
    return max(found, default=0.0)


def _tensors(got: Any, wanted: Any) -> Sequence[tuple[Tensor, Tensor]]:
    pairs = zip(pytree.tree_leaves(got), pytree.tree_leaves(wanted), strict=False)
    return [(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]


def _same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return isinstance(got, Tensor) and agree(got, wanted)
    return type(got) is type(wanted)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _plain(tensor: Tensor) -> Tensor:
    return torch.nan_to_num(tensor, nan=0.5, posinf=1.0, neginf=-1.0)
