"""Habits of code: numbers made from shapes, and sizes kept in odd places."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Shape, block, channel_dim, channels, mapping


@block(how=("mean", "root", "places", "ramp", "first", "branch", "parity", "power", "one_less",
            "fixed_width", "zeros", "norm_shape", "asserted", "entropy", "half"))  # fmt: skip
class Counted(nn.Module):
    """What is computed depends on how many channels there are."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        c, self.dim, self.how = channels(shape), channel_dim(shape), how
        self.other = mapping(shape, c) if how in ("branch", "parity") else nn.Identity()
        self.width, self._width = c, c

    def forward(self, x: Tensor) -> Tensor:
        return self.counted(self.other(x).movedim(self.dim, -1)).movedim(-1, self.dim)

    def counted(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        if self.how == "mean":
            return x - x.sum(-1, keepdim=True) / c
        if self.how == "root":
            return x * c**-0.5
        if self.how == "places":
            return x + torch.arange(c, device=x.device)
        if self.how == "ramp":
            return x * torch.linspace(0.5, 1.5, c, dtype=x.dtype)
        if self.how == "first":
            return x[..., : min(c, 3)]
        if self.how == "branch":
            return x.relu() if c > 4 else x.tanh()
        if self.how == "parity":
            return x.unflatten(-1, (2, -1)).flip(-2).flatten(-2) if c % 2 == 0 else x
        if self.how == "power":
            return x.pow(2).sum(-1, keepdim=True).div(x[0].numel()).sqrt() + x
        if self.how == "one_less":
            return x[..., 1:] - x[..., : c - 1] if c > 1 else x
        if self.how == "fixed_width":
            return F.pad(x, (0, self._width + 1 - c))
        if self.how == "zeros":
            y = x.new_zeros(*x.shape[:-1], self.width)
            y[..., :c] += x
            return y
        if self.how == "norm_shape":
            return F.layer_norm(x, (self.width,))
        if self.how == "asserted":
            assert c == self.width
            return x
        if self.how == "entropy":
            return x.softmax(-1) * torch.log(torch.tensor(float(c) + 1))
        return torch.cat([x[..., c // 2 :], x[..., : c // 2]], -1)


@block(how=("list", "dict", "tuple", "partial", "closure", "string", "size", "module_list",
            "property", "argument", "float", "tensor"), parts=(2, 3))  # fmt: skip
class Held(nn.Module):
    """Sizes of parts or of heads are held wherever people hold them."""

    def __init__(self, shape: Shape, how: str, parts: int) -> None:
        super().__init__()
        self.dim, self.how = channel_dim(shape), how
        self.before = mapping(shape, 2 * parts)
        self.scales = nn.ParameterList(torch.randn(2) for _ in range(parts))
        self.sizes = [2] * parts
        self.config = {"parts": parts, "each": 2}
        self.shape = (parts, 2)
        self.spec = f"{parts}x2"
        self.view = torch.Size((parts, 2))
        self.share = 1 / parts
        self.number = torch.tensor(parts)
        self.cut: Callable[..., tuple[Tensor, ...]] = functools.partial(
            torch.split, split_size_or_sections=2, dim=-1
        )
        self.held: Callable[[Tensor], tuple[Tensor, ...]] = lambda x: x.unflatten(
            -1, (parts, 2)
        ).unbind(-2)

    @property
    def each(self) -> int:
        return len(self.before.get_parameter("weight")) // len(self.scales)

    def parts(self, x: Tensor, many: int = 2) -> tuple[Tensor, ...]:
        if self.how == "list":
            return x.split(self.sizes, -1)
        if self.how == "dict":
            return x.unflatten(-1, (self.config["parts"], self.config["each"])).unbind(-2)
        if self.how == "tuple":
            return x.reshape(*x.shape[:-1], *self.shape).unbind(-2)
        if self.how == "partial":
            return self.cut(x)
        if self.how == "closure":
            return self.held(x)
        if self.how == "string":
            return x.unflatten(-1, tuple(map(int, self.spec.split("x")))).unbind(-2)
        if self.how == "size":
            return x.view(x.shape[:-1] + self.view).unbind(-2)
        if self.how == "module_list":
            return x.chunk(len(self.scales), -1)
        if self.how == "property":
            return x.split(self.each, -1)
        if self.how == "float":
            return x.split(int(x.shape[-1] * self.share), -1)
        if self.how == "tensor":
            return x.chunk(int(self.number), -1)
        return x.split(many, -1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x).movedim(self.dim, -1)
        parts = self.parts(x.contiguous())
        out = [p * s for p, s in zip(parts, self.scales, strict=True)]
        return torch.cat(out[::-1], -1).movedim(-1, self.dim)


@block(how=("late", "hook", "lazy", "by_name", "function", "in_eval", "float64"))
class Wrapped(nn.Module):
    """A layer that is reached, or made, in an unusual way."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        c, self.dim, self.how = channels(shape), channel_dim(shape), how
        self.layer, self.extra = mapping(shape, 3), mapping(shape, 3)
        self.table = {"a": self.layer} if how == "by_name" else {}
        self.cache: Tensor | None = None
        self.gain = nn.Parameter(torch.ones(c))
        if how == "hook":
            self.layer.register_forward_hook(_double)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "by_name":
            return self.table["a"](x)
        if self.how == "lazy":
            self.cache = y = self.layer(x)
            return y + self.cache
        if self.how == "function":
            return torch.func.functional_call(self.layer, dict(self.extra.named_parameters()), (x,))
        if self.how == "in_eval":
            return self.layer(x) if self.training else self.layer(x) + self.extra(x)
        if self.how == "float64":
            weight = self.layer.get_parameter("weight").double().flatten(1)
            y = x.movedim(self.dim, -1).double() @ weight.t()
            return y.to(x.dtype).movedim(-1, self.dim)
        if self.how == "late":
            return F.relu(self.layer((x.movedim(self.dim, -1) * self.gain).movedim(-1, self.dim)))
        return self.layer(x)


def _double(_module: nn.Module, _args: tuple[Tensor, ...], out: Tensor) -> Tensor:
    return out * 2
