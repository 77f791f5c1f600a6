"""Small networks whose wiring is hard on what is reused: residuals, views, work in place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.train.small import net
from tonsor.train import Batches, open_data
from tonsor.train.data.source import Subset


class Residual(nn.Module):
    """Residual blocks with ReLUs in place, on a stream that other views look into."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.left = nn.ModuleList(nn.Conv2d(8, 12, 3, padding=1) for _ in range(3))
        self.right = nn.ModuleList(nn.Conv2d(12, 8, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(3))
        self.act = nn.ReLU(inplace=True)
        self.linear = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for left, norm, right in zip(self.left, self.norms, self.right, strict=True):
            seen = x[:, :, 1:]  # a view, which sees what is done to x in place
            self.act(x)
            x += right(self.act(norm(left(x))))
            x = x + F.pad(seen, (0, 0, 1, 0))
        return self.linear(x.mean((2, 3)))


class Tokens(nn.Module):
    """A small vision transformer with positions, heads and residual streams."""

    def __init__(self, width: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(torch.zeros(1, 17, width))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "before": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width),
                "out": nn.Linear(width, width), "middle": nn.LayerNorm(width),
                "up": nn.Linear(width, 24), "down": nn.Linear(24, width),
            })
            for _ in range(2)
        )  # fmt: skip
        self.heads = heads
        self.linear = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        for b in self.blocks:
            assert isinstance(b, nn.ModuleDict)
            q, k, v = (
                b["qkv"](b["before"](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            )
            seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + b["out"](seen)
            x = x + b["down"](F.gelu(b["up"](b["middle"](x))))
        return self.linear(x[:, 0])


class Noisy(nn.Module):
    """A network that draws random numbers in between, also when it is judged."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        x = F.dropout(x, 0.3, training=True)
        x = self.second(x).relu()
        return self.last(F.dropout(x, 0.3, training=True) + torch.rand_like(x))


class Counting(nn.Module):
    """A network that writes into a buffer before most of its layers, and reads it after them."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        self.seen.fill_(0.5)
        return self.last(self.second(x).relu()) * self.seen


class Steered(nn.Module):
    """A network that goes one way or another by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        if float(x.mean()) > 0.2:
            x = x.square()
        return self.last(self.second(x).relu())


class Peeking(nn.Module):
    """A network that looks into the memory of a tensor, where no operator shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.second = nn.Linear(16, 16)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1)).relu()
        real = type(x) is Tensor  # while shapes are traced there is nothing to look into
        x = x * (1.5 if real and float(x.numpy().max()) < 1e9 else 2.5)
        return self.last(self.second(x).relu())


NETS: dict[str, Any] = {
    "plain": net, "residual": Residual, "tokens": Tokens, "noisy": Noisy, "counting": Counting,
    "steered": Steered, "peeking": Peeking,
}  # fmt: skip


def made(name: str) -> nn.Module:
    """Make a network, with weights that matter everywhere."""
    torch.manual_seed(0)
    model = NETS[name]()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean += 0.1 * torch.randn(module.running_mean.shape)
    return model.eval()


def validation(count: int = 150, size: int = 64) -> Batches:
    """Images of digits; the last minibatch is not full."""
    data = open_data("digits")
    rows = torch.arange(count)
    return Batches(
        Subset(data.train, rows), size=size, mean=data.mean, std=data.std, shuffle=False, seed=0
    )
