"""Parameters that are multiplied by a mask wherever they are used, drawn anew at each step."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tonsor.methods.parametrized import merge

GradMode = Literal["masked", "caffe"]


class DrawnMask(nn.Module):
    """Multiplies a parameter by what was drawn, or, outside of training, by what is not gone.

    The parameter itself stays as it is, so that what is masked now may be there at the next step.
    Masks are no part of the model's state. With `sampled` what was drawn counts outside of training
    too.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> held = Held(layer, "weight")
    >>> held.show_(torch.tensor([[True, False]]), torch.tensor([[True, True]]))
    >>> bool(layer.weight[0, 1] == 0), bool(layer.eval().weight[0, 1] == 0)
    (True, False)
    """

    def __init__(self) -> None:
        super().__init__()
        self.drawn = self.kept = torch.ones(())
        self.sampled = self.through = False
        self.seen: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Mask."""
        mask = self.drawn if self.training or self.sampled else self.kept
        out = weight * mask.to(weight)
        if self.through and torch.is_grad_enabled():
            out = weight + (out - weight).detach()
        self.seen = out if self.training and torch.is_grad_enabled() else None
        return out


class Held:
    """A parameter of a module that is masked until it is let go."""

    def __init__(self, module: nn.Module, name: str, mode: GradMode = "masked") -> None:
        self.module, self.name, self.mode = module, name, mode
        self._order = list(module._parameters)
        self.mask = DrawnMask()
        self.weight: nn.Parameter = getattr(module, name)
        parametrize.register_parametrization(module, name, self.mask)
        self._hook: Any = None
        if mode == "caffe":
            self._hook = module.register_forward_hook(self._restore)

    def show_(self, drawn: Tensor, kept: Tensor | None = None) -> None:
        """Mask by something else from now on; masks are of a shape that can be broadcast."""
        self.mask.drawn = drawn.to(self.weight, copy=True)
        if kept is not None:
            self.mask.kept = kept.to(self.weight, copy=True)

    def let_go(self) -> None:
        """Set to zero what is gone, and take the mask off."""
        if self._hook is not None:
            self._hook.remove()
        self.mask.drawn = self.mask.kept
        self.mask.through, self.mask.seen = False, None
        merge(self.module, self.name, self._order)

    def _restore(self, module: nn.Module, args: Any, out: Any) -> None:
        """Write the whole weight to where the masked one was, which goes backward then."""
        seen = self.mask.seen
        if seen is not None:
            seen.data.copy_(self.weight.data)
            self.mask.seen = None


def held_already(model: nn.Module) -> str | None:
    """Name a module that has a drawn mask, if there is one."""
    for name, module in model.named_modules():
        if isinstance(module, DrawnMask):
            return name.partition(".parametrizations")[0]
    return None
