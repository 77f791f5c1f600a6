"""What an earlier plan of the same model removes, held at zero while fibres are learned."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.drops import Drop
from tonsor.errors import SelectionError
from tonsor.families.blocks.ends import ends_of
from tonsor.families.blocks.find import find_blocks
from tonsor.methods.masks import Masks
from tonsor.plan_json import plan_text
from tonsor.plans import Plan
from tonsor.select.fibres.frame import Frame
from tonsor.surgery.fibre_tensors import mask_fibres_


class Earlier:
    """Holds at zero what an earlier plan removes, if there is one.

    The fibres of the weights that are `learned`, which may lose more, are not its business. A block
    is held by the `ends` of its branch: what scales and shifts it, or makes it; where those are not
    known, it can't be held.
    """

    def __init__(
        self, anatomy: Anatomy, plan: Plan | None, ends: Mapping[str, Sequence[str]],
        learned: Collection[str] = (),
    ) -> None:  # fmt: skip
        self._anatomy, self._plan = anatomy, plan
        self.drops: tuple[Drop, ...] = () if self._plan is None else self._plan.drops
        self._masks: tuple[torch.device, Masks] | None = None
        self._extra: list[tuple[nn.Parameter, Tensor]] = []
        if self._plan is None:
            return
        for drop in self.drops:
            if not ends.get(drop.name):
                message = (
                    f"the earlier plan removes block '{drop.name}', which can't be held at zero "
                    "while the model trains; cut by that plan first, train the slim model, and "
                    "put both plans together by later.rebase(earlier)"
                )
                raise SelectionError(message)
            for name in ends[drop.name]:
                tensor = self._anatomy.parameters[name]
                self._extra.append((tensor, torch.zeros_like(tensor, requires_grad=False)))
        for name, fibres in self._plan.fibres.items():
            if name not in learned:
                mask = torch.ones_like(self._anatomy.parameters[name], requires_grad=False)
                mask_fibres_(fibres.kind, mask, fibres.mask)
                self._extra.append((self._anatomy.parameters[name], mask))

    @classmethod
    def of(cls, frame: Frame) -> Earlier:
        """Hold the earlier plan of a frame."""
        ends: dict[str, tuple[str, ...]] = {}
        if frame.after is not None and frame.after.drops:
            ends = {b.name: ends_of(frame.anatomy, b) for b in find_blocks(frame.anatomy)}
        ends |= {b.drop.name: b.ends for b in frame.following.branches}
        learned = {frame.layers.by_name[name].weight for name in frame.start}
        return cls(frame.anatomy, frame.after, ends, learned)

    @torch.no_grad()
    def zero_(self) -> None:
        """Set to zero what the plan removes."""
        if (masks := self._held()) is not None:
            masks.weights_()
            for tensor, mask in self._extra:
                tensor.mul_(mask.to(tensor))

    @torch.no_grad()
    def zero_gradients_(self) -> None:
        """Keep the gradients of the same from the optimizer."""
        if (masks := self._held()) is not None:
            masks.gradients_()
            for tensor, mask in self._extra:
                if tensor.grad is not None:
                    tensor.grad.mul_(mask.to(tensor.grad))

    def _held(self) -> Masks | None:
        """The masks of the plan, made where the model is by now."""
        if self._plan is None:
            return None
        device = next(iter(self._anatomy.parameters.values())).device
        if self._masks is None or self._masks[0] != device:
            self._masks = device, Masks(self._anatomy, self._plan)
        return self._masks[1]


def digest(after: Plan | None) -> str:
    """Return what tells an earlier plan from others."""
    return "" if after is None else hashlib.sha256(plan_text(after).encode()).hexdigest()[:16]
