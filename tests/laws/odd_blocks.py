"""Layers of the kind that appears once in every second codebase: odd ways with channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, channel_dim, channels, mapping


@block(how=("repeat", "interleave", "strided", "flip", "roll", "index", "maxout", "lace", "doubled",
            "fold", "expand"))  # fmt: skip
class Rearrange(nn.Module):
    """Channels are repeated, picked, turned round, or laced into each other."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        c = channels(shape)
        self.how = how
        self.first = how in ("maxout", "fold") and c % 2 > 0
        self.before = mapping(shape, c + 1) if self.first else nn.Identity()
        self.other = mapping(shape, c) if how == "lace" else nn.Identity()
        self.order = nn.Buffer(torch.randperm(c))
        self.dim = channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x).movedim(self.dim, 1)
        if self.how == "lace":
            y = self.other(x.movedim(1, self.dim)).movedim(self.dim, 1)
            x = torch.stack([x, y], dim=2).flatten(1, 2)
        return self.arranged(x).movedim(1, self.dim)

    def arranged(self, x: Tensor) -> Tensor:
        if self.how == "repeat":
            return x.repeat(1, 2, *[1] * (x.dim() - 2))
        if self.how == "interleave":
            return x.repeat_interleave(2, dim=1)
        if self.how == "strided":
            return x[:, ::2]
        if self.how == "flip":
            return x.flip(1)
        if self.how == "roll":
            return x.roll(1, dims=1)
        if self.how == "index":
            return x[:, self.order]
        if self.how == "maxout":
            return x.unflatten(1, (-1, 2)).amax(2)
        if self.how == "fold":
            return x.unflatten(1, (2, -1)).sum(1)
        if self.how == "doubled":
            return torch.cat([x, -x], 1)
        if self.how == "expand":
            return x.unsqueeze(1).expand(-1, 2, *x.shape[1:]).flatten(1, 2)
        return x


@block(kernel=(3, 1), how=("channels", "pixels"))
class EfficientAttention(nn.Module):
    """A convolution runs along the channels themselves, as in ECA."""

    def __init__(self, shape: Shape, kernel: int, how: str) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2)
        self.how, self.image = how, len(shape) == 4

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)) if self.image else x.mean(1)
        y = self.conv(y[:, None] if self.how == "channels" else y.sum(1).view(-1, 1, 1))
        return x * (y.view(len(x), -1, 1, 1) if self.image else y.view(len(x), 1, -1)).sigmoid()


@block("image", width=WIDTHS, kernel=(3, 2), fold=FLAG)
class Unfold(nn.Module):
    """A convolution written out by hand, over the patches of an image."""

    def __init__(self, shape: Shape, width: int, kernel: int, fold: bool) -> None:
        super().__init__()
        self.kernel = kernel if shape[2] >= kernel else 1
        self.linear = nn.Linear(shape[1] * self.kernel**2, width)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(x, self.kernel)
        y = self.linear(patches.transpose(1, 2)).transpose(1, 2)
        return y.unflatten(2, (x.shape[2] - self.kernel + 1, -1))


@block("image", width=WIDTHS, grouped=FLAG)
class DynamicConv(nn.Module):
    """The kernel of a convolution is computed from the image itself."""

    def __init__(self, shape: Shape, width: int, grouped: bool) -> None:
        super().__init__()
        self.grouped, self.width = grouped, width
        self.kernel = nn.Linear(shape[1], shape[1] * (1 if grouped else width))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = self.kernel(x.mean((2, 3)))
        if self.grouped:
            y = F.conv2d(x.reshape(1, n * c, h, w), weight.view(n * c, 1, 1, 1), groups=n * c)
            return y.view(n, c, h, w)
        return F.conv2d(x, weight.mean(0).view(self.width, -1, 1, 1))


@block("tokens", width=WIDTHS, how=("last", "state", "cell", "both"))
class Summary(nn.Module):
    """What a recurrent layer ends with is added to every token."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.cell = nn.LSTM(shape[-1], width, batch_first=True, bidirectional=how == "both")
        self.out = nn.Linear(width * (2 if how == "both" else 1), shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        y, (h, c) = self.cell(x)
        if self.how == "last":
            z = y[:, -1]
        elif self.how == "both":
            z = torch.cat([h[0], h[1]], -1)
        else:
            z = (h if self.how == "state" else c)[-1]
        return x + self.out(z)[:, None]


@block("tokens", queries=(2, 1, 3), width=(4, 2))
class LearnedQueries(nn.Module):
    """Queries that are parameters look at all tokens, and the tokens at what they found."""

    def __init__(self, shape: Shape, queries: int, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.key, self.value = nn.Linear(shape[-1], width), nn.Linear(shape[-1], width)
        self.out = nn.Linear(width, shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.queries @ self.key(x).mT).softmax(-1)
        found = weights @ self.value(x)
        return x + (x @ self.out(found).mT).softmax(-1) @ self.out(found)


@block(heads=(2, 1, 3), how=("softmax", "mean", "norm"))
class Grouped(nn.Module):
    """Channels are seen as groups, and each group is treated by itself."""

    def __init__(self, shape: Shape, heads: int, how: str) -> None:
        super().__init__()
        self.before = mapping(shape, 2 * heads)
        self.heads, self.how, self.dim = heads, how, channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x).movedim(self.dim, -1).unflatten(-1, (self.heads, -1))
        if self.how == "softmax":
            y = y.softmax(-1)
        elif self.how == "mean":
            y = y - y.mean(-2, keepdim=True)
        else:
            y = F.normalize(y, dim=-1)
        return y.flatten(-2).movedim(-1, self.dim)


@block(inner=(4, 2), how=("outer", "bilinear"))
class Products(nn.Module):
    """Channels times channels."""

    def __init__(self, shape: Shape, inner: int, how: str) -> None:
        super().__init__()
        self.dim, self.how = channel_dim(shape), how
        self.a, self.b = mapping(shape, inner), mapping(shape, 2)
        self.bilinear = nn.Bilinear(inner, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = (layer(x).movedim(self.dim, -1) for layer in (self.a, self.b))
        if self.how == "outer":
            y = (a[..., :, None] * b[..., None, :]).flatten(-2)
        else:
            y = self.bilinear(a.contiguous(), b.contiguous())
        return y.movedim(-1, self.dim)
