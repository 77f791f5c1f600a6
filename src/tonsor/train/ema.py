"""A moving average of the weights, which is often the better model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.train.tree import laid_out


class Ema:
    """The moving average of everything in a model's state.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> ema = Ema(net, decay=0.9)
    >>> ema.update(net)
    >>> with ema.in_place(net):
    ...     averaged = net.weight.clone()

    The average starts at the first weights, and early on forgets faster, so that they do not
    linger: the decay is at most (1 + updates) / (10 + updates).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow = {name: t.detach().clone() for name, t in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights as they are now."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        floats: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for name, now in _tensors(model).items():
            if now.is_floating_point():
                olds, news = floats.setdefault(now.dtype, ([], []))
                olds.append(self.shadow[name])
                news.append(now.detach())
            else:
                self.shadow[name].copy_(now)
        for olds, news in floats.values():
            torch._foreach_lerp_(olds, news, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights for a while."""
        live = _tensors(model)
        kept = {name: tensor.detach().clone() for name, tensor in live.items()}
        try:
            _pour(self.shadow, live)
            yield
        finally:
            _pour(kept, live)

    def keep(self, model: nn.Module) -> None:
        """Take over what has been done to a model that has the averaged weights."""
        _pour(_tensors(model), self.shadow)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs."""
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved average."""
        self.updates = state["updates"]
        saved = state["shadow"]
        _pour({n: laid_out(saved[n], like) for n, like in self.shadow.items()}, self.shadow)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """The live tensors of a model's state; extra state that is no tensor is left out."""
    return {k: v for k, v in model.state_dict(keep_vars=True).items() if isinstance(v, Tensor)}


@torch.no_grad()
def _pour(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
