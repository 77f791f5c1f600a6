"""Residual blocks in every way that people write them, each with a switch that is its oracle.

`drop` is what a block's branch passes through before it is added: with the switch off it is zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 6


class Block(nn.Module):
    """A branch of one linear layer after a norm."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.off = False
        self.norm, self.f = nn.LayerNorm(width), nn.Linear(width, width)

    def branch(self, x: Tensor) -> Tensor:
        return self.drop(self.f(self.norm(x)).tanh())

    def drop(self, f: Tensor) -> Tensor:
        return f * 0.0 if self.off else f

    def forward(self, x: Tensor) -> Any:
        return x + self.branch(x)


class BranchFirst(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x


class InPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        x += self.branch(x)
        return x


class OutInPlace(Block):
    def forward(self, x: Tensor) -> Tensor:
        identity, out = x, self.branch(x).clone()
        out += identity
        return out.relu_()


class AddMethod(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x).clone().add_(x)


class Sigmoid(Block):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x + self.branch(x))


class PostActivation(Block):
    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.branch(x))


class Leaky(Block):
    """One activation module for both, which has no function of torch's to stand for it."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.drop(self.f(self.act(self.norm(x)))))


class SharedReLU(Leaky):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.act = nn.ReLU(inplace=True)


class PostNorm(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.drop(self.f(x)))


class Scaled(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gamma * self.branch(x)


class Gated(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.gate = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sigmoid(self.gate(x)) * self.branch(x)


class Excited(Block):
    """Its gate multiplies the branch, from the branch's own mean."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.less, self.more = nn.Linear(width, 2), nn.Linear(2, width)

    def forward(self, x: Tensor) -> Tensor:
        f = self.branch(x)
        return x + f * self.more(self.less(f).relu()).sigmoid()


class DropPath(Block):
    def forward(self, x: Tensor) -> Tensor:
        f = self.branch(x)
        if self.training:
            f = f / 0.8 * (torch.rand(len(x), 1, 1) < 0.8)
        return x + f


class Dropouts(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.dropout(x) + self.dropout(self.branch(x)))


class Twice(Block):
    """`alpha` is the branch's."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.branch(x), alpha=2)


class Nested(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.inner = Block(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.inner(self.f(x)))


class Parallel(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.g = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) + self.drop(self.g(x.transpose(1, 2)).transpose(1, 2))


class TwoSteps(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.mlp = nn.Sequential(nn.Linear(width, 9), nn.GELU(), nn.Linear(9, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.branch(x)
        return x + self.drop(self.mlp(x))


class Broadcast(Block):
    """What it adds is one vector for all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x.mean(1, keepdim=True))


class Reshaped(Block):
    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, WIDTH)
        return x + self.branch(flat).view(x.shape)


class Recurrent(Block):
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.lstm(x)[0])


class Normed(Block):
    """Parametrized weights: of the old kind, which is a hook, and of the new."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__(width)
        torch.nn.utils.parametrizations.weight_norm(self.f)
        self.g = torch.nn.utils.spectral_norm(nn.Linear(width, width))

    def branch(self, x: Tensor) -> Tensor:
        return self.drop(self.g(self.f(x)))


class Listed(Block):
    def forward(self, x: Tensor) -> Any:
        return [x + self.branch(x), None]


class Dictionary(Block):
    def forward(self, x: Tensor) -> Any:
        return {"hidden": x + self.branch(x), "kind": "dictionary", "scale": (1.5, True)}


class Unread(Block):
    """The second tensor that it returns is read by nobody."""

    def forward(self, x: Tensor) -> Any:
        f = self.branch(x)
        return x + f, f.mean()


class Masked(Block):
    """It hands the mask on, and is given all by keyword."""

    def forward(self, x: Tensor, mask: Tensor, note: str = "") -> Any:
        return x + self.branch(x) * mask, mask, note


class Odd(nn.Module):
    """Three blocks of one kind between two linear layers, over tokens."""

    def __init__(self, kind: type[Block]) -> None:
        super().__init__()
        self.masked = issubclass(kind, Masked)
        self.first = nn.Linear(3, WIDTH)
        self.layers = nn.ModuleList([kind() for _ in range(3)])
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Any = self.first(x)
        mask = (hidden[..., :1] > 0).to(x)
        for layer in self.layers:
            out = layer(x=hidden, mask=mask, note="n") if self.masked else layer(hidden)
            if isinstance(out, tuple) and self.masked:
                mask = out[1]
            hidden = out["hidden"] if isinstance(out, dict) else out
            hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        return self.last(hidden / len(self.layers))


def kinds() -> Iterator[type[Block]]:
    """Every kind of block in this file."""
    todo: list[type[Block]] = [Block]
    while todo:
        kind = todo.pop()
        yield kind
        todo += [k for k in kind.__subclasses__() if k.__module__ == __name__]
