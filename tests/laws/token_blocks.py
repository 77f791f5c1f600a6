"""Layers of tokens: attention in the ways people write it, gated MLPs, recurrent cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, dividing

SIZES = ("attribute", "number", "minus", "shape")


@block("tokens", heads=(1, 2, 4), head_dim=(2, 4), sizes=SIZES, bias=(True, False),
       qkv=("view", "chunk", "separate", "split", "unbind"),
       core=("sdpa", "softmax", "unscaled", "masked"))  # fmt: skip
class Attention(nn.Module):
    """Self-attention with as many keys as queries."""

    def __init__(
        self, shape: Shape, heads: int, head_dim: int, qkv: str, sizes: str, core: str, bias: bool
    ) -> None:
        super().__init__()
        width = heads * head_dim
        self.heads, self.head_dim = heads, head_dim
        self._heads, self._head_dim = heads, head_dim
        self.how, self.sizes, self.core = qkv, sizes, core
        if qkv == "separate":
            self.q, self.k, self.v = (nn.Linear(shape[-1], width, bias=bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(shape[-1], 3 * width, bias=bias)
        self.out = nn.Linear(width, shape[-1], bias=bias)

    def split_heads(self, x: Tensor, *before: int) -> Tensor:
        lead = (*x.shape[:-1], *before)
        if self.sizes == "attribute":
            return x.view(*lead, self.heads, self.head_dim)
        if self.sizes == "number":
            return x.view(*lead, self._heads, self._head_dim)
        if self.sizes == "minus":
            return x.view(*lead, -1, self.head_dim)
        each = x.shape[-1] // self.heads
        for number in before:
            each //= number
        return x.reshape(*lead, self.heads, each)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "separate":
            q, k, v = (self.split_heads(layer(x)) for layer in (self.q, self.k, self.v))
        elif self.how == "chunk":
            q, k, v = (self.split_heads(part) for part in self.qkv(x).chunk(3, -1))
        elif self.how == "split":
            y = self.qkv(x)
            q, k, v = (self.split_heads(part) for part in y.split(y.shape[-1] // 3, dim=-1))
        elif self.how == "view":
            y = self.split_heads(self.qkv(x), 3).permute(2, 0, 1, 3, 4)
            q, k, v = y[0], y[1], y[2]
        else:
            q, k, v = self.split_heads(self.qkv(x), 3).unbind(-3)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return self.out(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.core == "sdpa":
            return F.scaled_dot_product_attention(q, k, v)
        if self.core == "masked":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        weights = q @ k.transpose(-2, -1)
        if self.core == "softmax":
            weights = weights * self.head_dim**-0.5
        return weights.softmax(-1) @ v


@block("tokens", kv=(1, 2), repeat=(2, 1, 3), head_dim=(4, 2), rotary=FLAG, sizes=SIZES,
       how=("interleave", "expand", "enable", "view"))  # fmt: skip
class GroupedAttention(nn.Module):
    """Several queries share a key and a value; positions may turn pairs of dimensions."""

    def __init__(
        self, shape: Shape, kv: int, repeat: int, head_dim: int, how: str, rotary: bool, sizes: str
    ) -> None:
        super().__init__()
        c, d = shape[-1], head_dim
        self.n_heads, self.n_kv, self.n_rep, self.head_dim = kv * repeat, kv, repeat, d
        self._heads, self._kv, self._head_dim = kv * repeat, kv, d
        self.how, self.sizes, self.rotary = how, sizes, rotary
        self.wq, self.wk = nn.Linear(c, kv * repeat * d), nn.Linear(c, kv * d, bias=False)
        self.wv, self.wo = nn.Linear(c, kv * d), nn.Linear(kv * repeat * d, c, bias=False)
        self.inv_freq = nn.Buffer(10.0 ** -(torch.arange(d // 2) / d))

    def split_heads(self, x: Tensor, heads: int, literally: int) -> Tensor:
        n, t, c = x.shape
        if self.sizes == "number":
            return x.view(n, t, literally, self._head_dim).transpose(1, 2)
        if self.sizes == "minus":
            return x.view(n, t, -1, self.head_dim).transpose(1, 2)
        if self.sizes == "shape":
            return x.view(n, t, heads, c // heads).transpose(1, 2)
        return x.view(n, t, heads, self.head_dim).transpose(1, 2)

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2])[:, None].to(x) * self.inv_freq
        angle = torch.cat([angle, angle], -1)
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()

    def spread(self, x: Tensor) -> Tensor:
        n, heads, t, d = x.shape
        if self.how == "interleave":
            return x.repeat_interleave(self.n_rep, dim=1)
        y = x[:, :, None].expand(n, heads, self.n_rep, t, d)
        return y.reshape(n, heads * self.n_rep, t, d)

    def forward(self, x: Tensor) -> Tensor:
        q = self.split_heads(self.wq(x), self.n_heads, self._heads)
        k = self.split_heads(self.wk(x), self.n_kv, self._kv)
        v = self.split_heads(self.wv(x), self.n_kv, self._kv)
        if self.rotary:
            q, k = self.turn(q), self.turn(k)
        if self.how == "enable":
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        elif self.how == "view":
            n, _, t, d = q.shape
            y = q.view(n, self.n_kv, -1, t, d) @ k[:, :, None].transpose(-2, -1)
            y = (y.softmax(-1) @ v[:, :, None]).flatten(1, 2)
        else:
            y = F.scaled_dot_product_attention(q, self.spread(k), self.spread(v))
        return self.wo(y.transpose(1, 2).reshape(*x.shape[:2], -1))


@block("tokens", heads=(1, 2), width=(4, 8))
class TorchAttention(nn.Module):
    """torch's own module."""

    def __init__(self, shape: Shape, heads: int, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(shape[-1], width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        return x + self.attention(x, x, x, need_weights=False)[0]


@block("tokens", width=WIDTHS, tied=FLAG,
       how=("plain", "separate", "chunk", "glu", "split", "slice"))  # fmt: skip
class MLP(nn.Module):
    """Two linear layers, perhaps gated, perhaps with one and the same weight."""

    def __init__(self, shape: Shape, width: int, how: str, tied: bool) -> None:
        super().__init__()
        c = shape[-1]
        self.how, self.hidden, self.tied = how, width, tied and how == "plain"
        self.up = nn.Linear(c, width if how in ("plain", "separate") else 2 * width)
        if how == "separate":
            self.gate = nn.Linear(c, width, bias=False)
        if not self.tied:
            self.down = nn.Linear(width, c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x)
        if self.how == "plain":
            y = F.gelu(y)
        elif self.how == "separate":
            y = F.silu(self.gate(x)) * y
        elif self.how == "glu":
            y = F.glu(y)
        else:
            if self.how == "chunk":
                a, b = y.chunk(2, dim=-1)
            elif self.how == "split":
                a, b = y.split(self.hidden, dim=-1)
            else:
                a, b = y[..., : self.hidden], y[..., self.hidden :]
            y = a * torch.tanh(b)
        return F.linear(y, self.up.weight.t()) if self.tied else self.down(y)


@block("tokens", width=WIDTHS, cell=("lstm", "gru", "rnn"), layers=(1, 2), both_ways=FLAG,
       bias=(True, False))  # fmt: skip
class Recurrent(nn.Module):
    """A recurrent layer over the tokens, of which every state is used."""

    def __init__(
        self, shape: Shape, width: int, cell: str, layers: int, both_ways: bool, bias: bool
    ) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
        self.cell = kind(
            shape[-1], width, layers, batch_first=True, bidirectional=both_ways, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


@block("tokens", width=WIDTHS, groups=(1, 2, 99), kernel=(3, 1))
class TokenConv(nn.Module):
    """A convolution over neighbouring tokens; 99 groups stand for one for each channel."""

    def __init__(self, shape: Shape, width: int, groups: int, kernel: int) -> None:
        super().__init__()
        c = shape[-1]
        groups = c if groups == 99 else dividing(groups, c, width)
        self.conv = nn.Conv1d(
            c, c if groups == c else width, kernel, padding=kernel // 2, groups=groups
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.transpose(1, 2)).transpose(1, 2)


@block("tokens", how=("parameter", "embedding", "class_token", "buffer"))
class Position(nn.Module):
    """What is added to tokens by their place, or a token of its own."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        _, t, c = shape
        self.how = how
        self.lookup = nn.Embedding(t, c) if how == "embedding" else None
        if how == "buffer":
            self.table = nn.Buffer(torch.randn(t, c))
        elif how != "embedding":
            self.table = nn.Parameter(torch.randn(1, 1 if how == "class_token" else t, c))

    def forward(self, x: Tensor) -> Tensor:
        if self.lookup is not None:
            return x + self.lookup(torch.arange(x.shape[1], device=x.device))
        if self.how == "class_token":
            return torch.cat([self.table.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self.table


@block("tokens", over=("channels", "tokens"))
class Gram(nn.Module):
    """h @ h.T, between channels or between tokens."""

    def __init__(self, shape: Shape, over: str) -> None:
        super().__init__()
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        if self.over == "tokens":
            return (x @ x.mT).tanh() @ x
        return x @ (x.mT @ x).tanh()
