"""Parameters that are multiplied by a mask wherever they are used, drawn anew at each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tonsor.anatomy import Anatomy
from tonsor.errors import TrainError
from tonsor.methods.parametrized import merge

GradMode = Literal["masked", "caffe"]
Place = tuple[nn.Module, str]
_MOMENTA = ("momentum_buffer", "exp_avg")


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

    def __init__(self, *, restored: bool = False) -> None:
        super().__init__()
        self.drawn = self.kept = torch.ones(())
        self.sampled = self.through = False
        self.restored = restored
        self.seen: Tensor | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """Mask."""
        mask = self.drawn if self.training or self.sampled else self.kept
        out = weight * mask.to(weight)
        if self.restored:
            learns = torch.is_grad_enabled()
            if self.through and learns:
                out = weight + (out - weight).detach()
            self.seen = out if self.training and learns else None
        return out

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is of one forward pass, which can't be copied."""
        return {**self.__dict__, "seen": None}


class Held:
    """A parameter of a module that is masked until it is let go.

    `also` are the other places that have the same parameter.
    """

    def __init__(
        self, module: nn.Module, name: str, mode: GradMode = "masked", also: Sequence[Place] = ()
    ) -> None:
        self.module, self.name = module, name
        self.mask = DrawnMask(restored=mode == "caffe")
        self.weight: nn.Parameter = getattr(module, name)
        self._places: list[tuple[nn.Module, str, list[str]]] = []
        self._hooks: list[Any] = []
        for owner, own in ((module, name), *also):
            order = list(owner._parameters)
            parametrize.register_parametrization(owner, own, self.mask)
            self._places.append((owner, own, order))
            if mode == "caffe":
                self._hooks.append(owner.register_forward_hook(self._restore))

    def show_(self, drawn: Tensor, kept: Tensor | None = None) -> None:
        """Mask by something else from now on; masks are of a shape that can be broadcast."""
        self.mask.drawn = drawn.to(self.weight, copy=True)
        if kept is not None:
            self.mask.kept = kept.to(self.weight, copy=True)

    def let_go(self) -> None:
        """Set to zero what is gone, and take the mask off."""
        for hook in self._hooks:
            hook.remove()
        self.mask.drawn = self.mask.kept
        self.mask.restored, self.mask.seen = False, None
        for owner, own, order in reversed(self._places):
            merge(owner, own, order)

    def _restore(self, module: nn.Module, args: Any, out: Any) -> None:
        """Write all that is not gone to where the masked weight was, which goes backward then."""
        seen = self.mask.seen
        if seen is None:
            return
        if torch.is_autocast_enabled(seen.device.type):
            message = (
                "gradient='caffe' does not work under autocast, which computes with a copy of the "
                "weight; train in float32, or choose gradient='masked'"
            )
            raise TrainError(message)
        torch.mul(self.weight.data, self.mask.kept.to(seen), out=seen.data)
        self.mask.seen = None


def hold(anatomy: Anatomy, names: Iterable[str], mode: GradMode) -> dict[str, Held]:
    """Begin to mask parameters, wherever the model has them: all of them, or none."""
    places: dict[int, list[Place]] = {}
    for module in anatomy.model.modules():
        for own, parameter in module._parameters.items():
            places.setdefault(id(parameter), []).append((module, own))
    held: dict[int, Held] = {}
    found: dict[str, Held] = {}
    try:
        for name in names:
            parameter = anatomy.parameters[name]
            if id(parameter) not in held:
                (owner, own), *also = places[id(parameter)]
                held[id(parameter)] = Held(owner, own, mode, also)
            found[name] = held[id(parameter)]
    except BaseException:
        let_go(held.values())
        raise
    return found


def let_go(held: Iterable[Held]) -> None:
    """Let parameters go, in the order in which each module is found as it was left."""
    for one in reversed(list(held)):
        one.let_go()


@contextmanager
def drawn_everywhere(held: Iterable[Held]) -> Iterator[None]:
    """Mask by what was drawn in modules too that are kept in evaluation mode."""
    masks = [one.mask for one in held]
    before = [mask.sampled for mask in masks]
    for mask in masks:
        mask.sampled = True
    try:
        yield
    finally:
        for mask, sampled in zip(masks, before, strict=True):
            mask.sampled = sampled


def draw_elements_(held: Iterable[Held], generator: torch.Generator) -> None:
    """Draw for each weight by itself; what is shown by now is the probability that it stays."""
    for one in held:
        stays = one.mask.drawn.cpu().expand(one.weight.shape)
        one.show_(torch.rand(stays.shape, generator=generator) < stays)


def momenta(
    optimizer: torch.optim.Optimizer, held: Iterable[Held]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what an optimizer moves masked parameters by, each with its mask."""
    for one in held:
        state: dict[str, Any] = optimizer.state.get(one.weight) or {}
        for key in _MOMENTA:
            if isinstance(buffer := state.get(key), Tensor):
                yield buffer, one.mask.drawn.to(buffer)


def held_already(model: nn.Module) -> str | None:
    """Name a module that has a drawn mask, if there is one."""
    for name, module in model.named_modules():
        if isinstance(module, DrawnMask):
            return name.partition(".parametrizations")[0]
    return None
