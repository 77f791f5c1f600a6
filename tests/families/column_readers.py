"""Ways to read channels, of which one convolution alone is to lose columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Way = Callable[[Any, Tensor], Tensor]
Use = Callable[[Any, Tensor], Tensor]


def three(given: int, made: int, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(given, made, 3, padding=1, **more)


class Reading(nn.Module):
    """`a` makes six channels, `b` reads them, and whatever `run` does else."""

    def __init__(self, run: Way) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = three(3, 6), three(6, 4), nn.Conv2d(6, 4, 1), three(6, 6)
        self.grouped, self.depth = three(6, 4, groups=2), three(6, 6, groups=6)
        self.fc, self.square, self.norm = nn.Linear(6, 4), nn.Linear(6, 6), nn.LayerNorm(6)
        self.left, self.right = (nn.Parameter(torch.zeros(n)) for n in ((6, 2), (2, 3)))
        self.position = nn.Parameter(torch.zeros(6, 1))
        self.bn, self.act, self.instance = nn.BatchNorm2d(6), nn.PReLU(6), nn.InstanceNorm2d(6)
        self.of_groups, self.lrn = nn.GroupNorm(2, 6), nn.LocalResponseNorm(3)
        self.up, self.wide = nn.ConvTranspose2d(6, 6, 1), nn.Conv2d(12, 4, 1)
        self.gru, self.bi = nn.GRU(6, 6, batch_first=True), nn.Bilinear(6, 6, 6)
        self.heads = nn.MultiheadAttention(6, 1, batch_first=True)
        self.normed = parametrizations.spectral_norm(three(3, 6))
        self.register_buffer("memory", torch.zeros(2, 6, 6, 6))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x).float().flatten(1)

    def made(self, x: Tensor) -> Tensor:
        return self.a(x).tanh()


def rows(x: Tensor) -> Tensor:
    """Channels last, one row for each place."""
    return x.flatten(2).transpose(1, 2)


def back(x: Tensor) -> Tensor:
    side = math.isqrt(x.shape[1])
    return x.transpose(1, 2).unflatten(2, (side, side))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def written(x: Tensor) -> Tensor:
    """A copy that is written into what was zero before."""
    out = torch.zeros_like(x)
    out[:] = x
    return out


def between(use: Use) -> Way:
    """What comes between `a` and `b`."""
    return lambda m, x: m.b(use(m, m.made(x)))


def beside(use: Use) -> Way:
    """What else reads what `b` reads."""

    def run(m: Any, x: Tensor) -> Tensor:
        h = m.made(x)
        return m.b(h).flatten(1) + use(m, h).flatten(1).sum(1, keepdim=True)

    return run


def gram(f: Tensor) -> Tensor:
    return f @ f.transpose(1, 2)


def attended(m: Any, h: Tensor) -> Tensor:
    r = rows(h)
    return back(r + F.scaled_dot_product_attention(r, r, r))


def steered(m: Any, h: Tensor) -> Tensor:
    return m.b(h) if bool(h.sum() > -1e9) else m.c(h)


def stored(m: Any, x: Tensor) -> Tensor:
    h = m.made(x)
    m.memory[:] = h
    return m.b(h) + m.fc(pooled(m.memory))[..., None, None]


# What comes between `a` and `b`, and takes channels together.
MIXING: Mapping[str, Use] = {
    "a transposed convolution between": lambda m, h: h + m.up(h),
    "the mean of channels in all": lambda m, h: h - h.mean(1, keepdim=True),
    "a sum of channels": lambda m, h: h * h.sum(1, keepdim=True),
    "the largest": lambda m, h: h / h.amax(1, keepdim=True),
    "a deviation": lambda m, h: h / h.std(1, keepdim=True),
    "a length": lambda m, h: F.normalize(h, dim=1),
    "softmax": lambda m, h: h.softmax(1),
    "a running sum": lambda m, h: h.cumsum(1),
    "layer norm": lambda m, h: m.norm(h.movedim(1, -1)).movedim(-1, 1),
    "a norm of groups": lambda m, h: m.of_groups(h),
    "a norm of neighbours": lambda m, h: m.lrn(h),
    "a gate of linear layers": lambda m, h: h * m.square(pooled(h)).sigmoid()[..., None, None],
    "a gram matrix that comes back": lambda m, h: (gram(h.flatten(2)) @ h.flatten(2)).view_as(h),
    "a gram matrix of broadcasts": lambda m, h: h * (h[:, :, None] * h[:, None]).sum(2),
    "distances of channels": (
        lambda m, h: h * torch.cdist(h.flatten(2), h.flatten(2)).sum(2)[..., None, None]
    ),
    "an outer product": lambda m, h: h + torch.einsum("bchw,bd->bchw", h, pooled(h) + pooled(h)),
    "products of places": lambda m, h: h + back(gram(rows(h)) @ rows(h)),
    "attention": attended,
    "heads": lambda m, h: back(rows(h) + m.heads(rows(h), rows(h), rows(h))[0]),
    "a recurrent layer": lambda m, h: back(rows(h) + m.gru(rows(h))[0]),
    "a bilinear layer": lambda m, h: back(rows(h) + m.bi(rows(h), rows(h))),
    "a residual linear layer": lambda m, h: h + back(m.square(rows(h))),
    "a residual product": lambda m, h: h + back(rows(h) @ m.square.weight),
    "a vector through a matrix": (
        lambda m, h: h * m.position[..., None] * (m.square.weight @ m.position)[..., None]
    ),
    "vectors by letters": (
        lambda m, h: h * m.position[..., None] * torch.einsum(
            "ik,jk->i", m.position, m.position
        )[:, None, None]
    ),
    "a matrix that is summed": (
        lambda m, h: h + (m.square.weight.sum(0) + m.square.weight.sum(1))[:, None, None]
    ),
}  # fmt: skip

# The same, each channel by itself.
PASSING: Mapping[str, Use] = {
    "a norm": lambda m, h: m.act(m.bn(h)),
    "a norm of each channel": lambda m, h: m.instance(h),
    "pools": lambda m, h: F.max_pool2d(F.avg_pool2d(h, 3, 1, 1), 2),
    "resizing": lambda m, h: F.interpolate(F.pad(h, (1, 1, 1, 1)), scale_factor=2),
    "depthwise": lambda m, h: m.depth(h).relu(),
    "other dimensions": lambda m, h: back(rows(h).relu()),
    "written in place": lambda m, h: written(h),
    "a gate of itself": lambda m, h: h * h.sigmoid() * pooled(h)[..., None, None],
    "in half precision": lambda m, h: h.to(torch.bfloat16).to(h.dtype),
}  # fmt: skip

STAYS: Mapping[str, Way] = {
    **{name: between(use) for name, use in MIXING.items()},
    "a linear layer": beside(lambda m, h: m.fc(pooled(h))),
    "a linear layer at each place": beside(lambda m, h: m.fc(h.movedim(1, -1))),
    "a convolution that is kept": beside(lambda m, h: m.c(h)),
    "a convolution of groups": beside(lambda m, h: m.grouped(h)),
    "a transposed convolution": beside(lambda m, h: m.up(h)),
    "the mean of channels": beside(lambda m, h: h.mean(1)),
    "a gram matrix": beside(lambda m, h: gram(h.flatten(2))),
    "written in place": beside(lambda m, h: m.fc(pooled(written(h)))),
    "the output": lambda m, x: torch.cat([m.b(h := m.made(x)), h], 1),
    "a difference of the stream": lambda m, x: m.b(h := m.made(x)) + m.c(h + m.d(h)),
    "another of the stream": lambda m, x: m.c(m.made(x) + m.d(x.repeat(1, 2, 1, 1))) + m.b(
        m.d(x.repeat(1, 2, 1, 1))
    ),
    "side by side elsewhere": lambda m, x: m.b(h := m.made(x)) + m.wide(
        torch.cat([h, m.d(x.repeat(1, 2, 1, 1))], 1)
    ),
    "a vector that is read too": lambda m, x: m.b(m.made(x) + m.position[..., None]) + m.fc(
        m.position[:, 0]
    )[:, None, None],
    "a product of vectors": lambda m, x: m.b(m.made(x) + m.position[..., None]) * (
        m.position[:, 0] @ m.position[:, 0]
    ),
    "a filter that is measured": lambda m, x: m.b(m.made(x)) * m.a.weight.square().sum(),
    "made by a recurrent layer": lambda m, x: m.b(back(m.gru(rows(x.repeat(1, 2, 1, 1)))[0])),
    "a convolution of the vector": lambda m, x: m.b(m.made(x) + m.position[..., None]) + m.c(
        m.position[None, ..., None]
    ),
    "a buffer": lambda m, x: m.b(h := m.made(x)) + m.fc(pooled(m.memory.copy_(h)))[..., None, None],
    "a buffer later": stored,
    "spectral norm": lambda m, x: m.b(m.normed(x)),
    "where to go": lambda m, x: steered(m, m.made(x)),
    "another call of it": lambda m, x: m.b(h := m.made(x)) + m.b(h.flip(1)),
}  # fmt: skip

GOES: Mapping[str, Way] = {
    **{name: between(use) for name, use in PASSING.items()},
    "at once": lambda m, x: m.b(m.a(x)),
    "a stream": lambda m, x: m.b(m.made(x) + m.d(x.repeat(1, 2, 1, 1))),
    "called twice": lambda m, x: m.b(m.made(x)) - m.b(m.made(x * 2)),
    "a vector": lambda m, x: m.b(m.made(x) * m.position[..., None].exp()),
    "a product of matrices": lambda m, x: m.b(F.conv2d(x, (m.left @ m.right)[..., None, None])),
}  # fmt: skip
