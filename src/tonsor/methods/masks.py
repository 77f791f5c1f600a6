"""Holding at zero what a plan removes, while the model trains at its full size."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.families.channels import parts
from tonsor.plans import Plan
from tonsor.surgery.slice import mask_


class Masks:
    """One mask for each parameter that a plan cuts, made once and multiplied in at each step.

    Everything is held that the cut would remove: what makes a piece, its bias, scale and shift,
    and what reads it. So the masked model computes what the slim one does, and once it trains
    no more is cut without another word.
    """

    def __init__(self, anatomy: Anatomy, plan: Plan) -> None:
        seen: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for name, kept in plan.cut().keep.items():
            tensor = anatomy.parameters.get(name)
            if tensor is not None and id(tensor) not in seen:  # tied ones are cut alike
                mask = torch.ones_like(tensor, requires_grad=False)
                mask_(mask, kept)
                seen[id(tensor)] = (tensor, mask)
        self._held = tuple(seen.values())

    @torch.no_grad()
    def gradients_(self) -> None:
        """Set the gradients of what is gone to zero, so that momentum dies away."""
        _multiply([(t.grad, mask) for t, mask in self._held if t.grad is not None])

    @torch.no_grad()
    def weights_(self) -> None:
        """Set what is gone to zero, wherever the optimizer has moved it."""
        _multiply(list(self._held))


def _multiply(pairs: list[tuple[Tensor, Tensor]]) -> None:
    if pairs:
        torch._foreach_mul_([t for t, _ in pairs], [m for _, m in pairs])  # pyright: ignore[reportPrivateImportUsage]


@torch.no_grad()
def zero_makers_(anatomy: Anatomy, keep: Mapping[str, tuple[int, ...]]) -> None:
    """Set the weights that make what is not kept to zero; what passes it on stays as it is."""
    for name, kept in keep.items():
        group = anatomy.by_name[name]
        gone = torch.ones(group.size, dtype=torch.bool)
        gone[list(kept)] = False
        for part in parts(anatomy, group):
            if part.made:
                weight = anatomy.parameters[part.member.tensor]
                part.of(weight).index_fill_(0, gone.nonzero().flatten().to(weight.device), 0)
