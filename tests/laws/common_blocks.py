"""Layers of images and tokens alike: activations, norms, parting and joining, wiring."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, channel_dim, channels, dividing, mapping

ACTS = ("gelu", "relu", "relu_", "silu", "leaky", "prelu", "prelus", "sigmoid", "hardswish", "elu",
        "exp", "dropout", "clamp")  # fmt: skip


@block(kind=ACTS)
class Act(nn.Module):
    """An activation, some of which are not zero at zero."""

    def __init__(self, shape: Shape, kind: str) -> None:
        super().__init__()
        if kind.startswith("prelu"):
            self.prelu = nn.PReLU(shape[1] if kind == "prelus" and len(shape) == 4 else 1)
        self.kind = kind.removesuffix("s") if kind == "prelus" else kind
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind in ("prelu", "dropout"):
            return getattr(self, self.kind)(x)
        if self.kind == "relu_":
            return F.relu(x.clone(), inplace=True)
        if self.kind == "leaky":
            return F.leaky_relu(x, 0.2)
        if self.kind == "exp":
            return (-x.abs()).exp()
        if self.kind == "clamp":
            return x.clamp(-0.5, 2)
        return getattr(F, self.kind)(x)


@block(width=WIDTHS)
class Glu(nn.Module):
    """One half of the channels gates the other."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        self.up, self.dim = mapping(shape, 2 * width), channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.up(x), dim=self.dim)


@block(kind=("batch", "group", "layer", "instance", "rms", "l2", "batch_plain", "channels_first"),
       groups=(2, 1, 3))  # fmt: skip
class Norm(nn.Module):
    """A normalisation; where it wants its channels last or second, they are brought there."""

    def __init__(self, shape: Shape, kind: str, groups: int) -> None:
        super().__init__()
        c = channels(shape)
        self.kind, self.last = kind, kind in ("layer", "rms")
        self.image = len(shape) == 4
        if kind == "instance" and self.image and shape[2] < 2:
            self.kind = kind = "l2"
        batch = nn.BatchNorm2d if self.image else nn.BatchNorm1d
        instance = nn.InstanceNorm2d if self.image else nn.InstanceNorm1d
        if kind == "group":
            self.norm = nn.GroupNorm(dividing(groups, c), c)
        elif kind == "layer":
            self.norm = nn.LayerNorm(c)
        elif kind == "rms":
            self.norm = nn.RMSNorm(c)
        elif kind == "instance":
            self.norm = instance(c, affine=groups > 1)
        elif kind.startswith("batch"):
            self.norm = batch(c, affine=kind == "batch")
        elif kind == "channels_first":
            self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        if not self.image:
            x = x.transpose(1, 2)
        if self.kind == "l2":
            x = F.normalize(x, dim=1)
        elif self.kind == "channels_first":
            mean = x.mean(1, keepdim=True)
            x = (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
            lead = (-1, *[1] * (x.dim() - 2))
            x = x * self.weight.view(lead) + self.bias.view(lead)
        elif self.last:
            x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        else:
            x = self.norm(x)
        return x if self.image else x.transpose(1, 2)


@block(how=("parameter", "buffer", "add", "add_buffer", "threshold", "scalar", "affine"))
class Scale(nn.Module):
    """Channels are multiplied, moved or clipped by something that belongs to them."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        size = (channels(shape), 1, 1) if len(shape) == 4 else (channels(shape),)
        self.how = how
        if "buffer" in how:
            self.register_buffer("gain", torch.randn(size))
        else:
            self.gain = nn.Parameter(torch.randn(1 if how == "scalar" else size))
        self.shift = nn.Parameter(torch.randn(size)) if how == "affine" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.how.startswith("add"):
            return x + self.gain
        if self.how == "threshold":
            return torch.max(x, self.gain)
        return x * self.gain if self.shift is None else torch.addcmul(self.shift, x, self.gain)


@block(how=("softmax", "mean", "cumsum", "max", "sum", "var", "logsumexp", "softmax_all"))
class Statistic(nn.Module):
    """An operator that runs over channels, for which zero need not be neutral."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        self.how, self.dim = how, channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "softmax":
            return x.softmax(self.dim)
        if self.how == "softmax_all":
            return x.flatten(1).softmax(-1).view_as(x)
        if self.how == "cumsum":
            return x.cumsum(self.dim)
        if self.how == "max":
            return x - x.amax(self.dim, keepdim=True)
        if self.how == "var":
            return x + x.var(self.dim, correction=0, keepdim=True)
        return x + getattr(x, self.how)(self.dim, keepdim=True)


@block(how=("chunk", "split", "slice", "tensor_split", "unbind", "narrow"), at=(1, 2, 3),
       then=("map", "swap", "gate", "drop", "norm"))  # fmt: skip
class Part(nn.Module):
    """Channels are parted, one part goes its own way, and they meet again."""

    def __init__(self, shape: Shape, how: str, at: int, then: str) -> None:
        super().__init__()
        c, self.dim = channels(shape), channel_dim(shape)
        even = how in ("chunk", "unbind")
        at = c // 2 if even else min(at, c - 1)
        self.how, self.at, self.rest = how, at, c - at
        self._at = at
        if even and c % 2:
            self.before, at, self.rest = mapping(shape, c + 1), (c + 1) // 2, (c + 1) // 2
        else:
            self.before = nn.Identity()
        self.then = "drop" if then == "swap" and c < 2 else then
        first, second = list(shape), list(shape)
        first[self.dim], second[self.dim] = max(at, 1), self.rest
        if self.then == "map":
            self.map = mapping(first, 2)
        elif self.then == "gate":
            self.map = mapping(second, max(at, 1))
        elif self.then == "norm" and len(shape) == 4:
            self.norm = nn.BatchNorm2d(self.rest)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        d = self.dim
        if x.shape[d] < 2:
            return x, x
        if self.how == "chunk":
            return x.chunk(2, d)
        if self.how == "split":
            return x.split([self.at, self.rest], d)
        if self.how == "tensor_split":
            return x.tensor_split((self._at,), d)
        if self.how == "unbind":
            return x.unflatten(d, (2, -1)).unbind(d)
        if self.how == "narrow":
            return x.narrow(d, 0, self.at), x.narrow(d, self.at, self.rest)
        if d == 1:
            return x[:, : self._at], x[:, self._at :]
        return x[..., : self._at], x[..., self._at :]

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.parts(self.before(x))
        if self.then == "map":
            return torch.cat([self.map(a), b], self.dim)
        if self.then == "gate":
            return a * self.map(b).sigmoid()
        if self.then == "drop":
            return b
        if self.then == "norm" and hasattr(self, "norm"):
            return torch.cat((self.norm(b), a), self.dim)
        return torch.cat((b, a), self.dim)


@block(low=(0, 1, 2), high=(1, 0, 2))
class Pad(nn.Module):
    """Channels of zeros, as in the shortcuts of ResNets for CIFAR."""

    def __init__(self, shape: Shape, low: int, high: int) -> None:
        super().__init__()
        self.amounts = [0] * (2 * (len(shape) - 1 - channel_dim(shape))) + [low, high]

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts)


@block(width=WIDTHS, how=("einsum", "linear", "matmul", "parameter_sum"))
class Mix(nn.Module):
    """A linear map of the channels, written out by hand."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        self.how, self.dim = how, channel_dim(shape)
        self.weight = nn.Parameter(torch.randn(width, channels(shape)))

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(self.dim, -1)
        if self.how == "einsum":
            y = torch.einsum("n...c,oc->n...o", x, self.weight)
        elif self.how == "linear":
            y = F.linear(x, self.weight)
        elif self.how == "matmul":
            y = x @ self.weight.t()
        else:
            y = (x.unsqueeze(-2) * self.weight).sum(-1)
        return y.movedim(-1, self.dim)


# ---------------------------------------------------------------- wiring


def _fitting(y: Tensor, x: Tensor) -> Tensor:
    """Bring an image to the pixels of another, or tokens to its number."""
    if y.dim() == 4:
        return y if y.shape[2:] == x.shape[2:] else F.interpolate(y, size=x.shape[2:])
    return y if y.shape[1] == x.shape[1] else y[:, -x.shape[1] :]


def _shape_of(body: nn.Module, shape: Shape) -> list[int]:
    was = body.training
    with torch.no_grad():
        out = list(body.eval()(torch.zeros(list(shape))).shape)
    body.train(was)
    return out


@block(bodies=1, how=("add", "mul", "stack", "maximum"))
class Residual(nn.Module):
    """The input meets what became of it; the shortcut is a map where widths differ."""

    def __init__(self, shape: Shape, body: nn.Module, how: str) -> None:
        super().__init__()
        self.body, self.how = body, how
        out = channels(_shape_of(body, shape))
        self.shortcut = nn.Identity() if out == channels(shape) else mapping(shape, out)

    def forward(self, x: Tensor) -> Tensor:
        y = _fitting(self.body(x), x)
        x = self.shortcut(x)
        if self.how == "stack":
            return torch.stack([x, y]).mean(0)
        if self.how == "mul":
            return x * y.sigmoid()
        return torch.maximum(x, y) if self.how == "maximum" else x + y


@block(bodies=1, first=FLAG)
class Dense(nn.Module):
    """The input is laid beside what became of it."""

    def __init__(self, shape: Shape, body: nn.Module, first: bool) -> None:
        super().__init__()
        self.body, self.first, self.dim = body, first, channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        y = _fitting(self.body(x), x)
        return torch.cat([y, x] if self.first else [x, y], self.dim)


@block(bodies=2)
class Branches(nn.Module):
    """Two ways side by side, of whatever widths."""

    def __init__(self, shape: Shape, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.dim = first, second, channel_dim(shape)

    def forward(self, x: Tensor) -> Tensor:
        ways = [_fitting(way(x), x) for way in (self.first, self.second)]
        return torch.cat(ways, self.dim)


@block(bodies=1)
class Twice(nn.Module):
    """One module, used twice; a map brings its output back to its input."""

    def __init__(self, shape: Shape, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        out = list(shape)
        out[channel_dim(shape)] = channels(_shape_of(body, shape))
        self.back = nn.Identity() if out == list(shape) else mapping(out, channels(shape))

    def forward(self, x: Tensor) -> Tensor:
        y = _fitting(self.body(x), x)
        return _fitting(self.body(self.back(y)), x) + y
