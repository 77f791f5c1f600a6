"""The loss that holds a search near its budget."""

from __future__ import annotations

from torch import Tensor


def flop_loss(
    expected: Tensor, actual: float, target: float, tolerance: float, *, upper: bool = True
) -> Tensor:
    """Return `log E` where what was drawn costs too much, `-log E` where too little, and else 0.

    `expected` is what the odds let expect, with gradients, and `actual` what was drawn costs.
    Within `tolerance` of the target, its ends included, nothing is asked for; without `upper`,
    there is no tolerance above the target. The unit of the cost does not matter.

    >>> import torch
    >>> e = torch.tensor(100.0)
    >>> [round(flop_loss(e, a, 50, 0.05).item(), 2) for a in (80, 52.5, 47.5, 20)]
    [4.61, 0.0, 0.0, -4.61]
    """
    if actual > (1 + tolerance if upper else 1) * target:
        return expected.log()
    if actual < (1 - tolerance) * target:
        return -expected.log()
    return expected.new_zeros(())
