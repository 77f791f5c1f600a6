"""What a method does around each training step; the loop drives it, or you do.

method.attach(optimizer)
for step, (images, labels) in enumerate(batches):
    loss = F.cross_entropy(model(images), labels)
    penalty = method.penalty(model)
    (loss if penalty is None else loss + penalty).backward()
    method.before_step(step)
    optimizer.step()
    optimizer.zero_grad()
    method.after_step(step)
plan = method.finish()
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tonsor.plans import Plan


class Method(Protocol):
    """A method of pruning that works while a model trains.

    Write a class that derives from this and define what you need; the rest does nothing. What a
    method adds to the model, it adds when it is made, before there is an optimizer. `step` counts
    from 0. Where several processes train, each has a method, and all have to decide the same: draw
    from a generator of your own with one seed. `finish` finds the chosen weights in the model, and
    the method in the state it had with them; a method that prunes bit by bit wants
    `Recipe(choose="last")`.
    """

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Get to know what the optimizer remembers, such as momentum, before the first step."""

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return what is added to the loss of this step, if anything."""
        return None

    def before_step(self, step: int) -> None:
        """Look at or change the gradients, before the optimizer sees them."""

    def after_step(self, step: int) -> None:
        """Look at or change the weights, after the optimizer has changed them."""

    def finish(self) -> Plan | None:
        """Return what is to be cut, when training is over."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what the method needs to go on: tensors, numbers, texts, lists and dicts."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""


class NoMethod(Method):
    """Nothing is done around the steps."""
