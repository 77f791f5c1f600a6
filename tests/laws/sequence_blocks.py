"""Layers of language models and other sequence models, old and new."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block


@block("tokens", heads=(1, 2), each=(2, 4), hidden=(3, 6), first=FLAG, act=("relu", "gelu"),
       bias=(True, False))  # fmt: skip
class Encoder(nn.Module):
    """torch's own encoder layer."""

    def __init__(
        self, shape: Shape, heads: int, each: int, hidden: int, first: bool, act: str, bias: bool
    ) -> None:
        super().__init__()
        width = heads * each
        self.into = nn.Linear(shape[-1], width)
        self.layer = nn.TransformerEncoderLayer(
            width, heads, hidden, 0.0, act, batch_first=True, norm_first=first, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.into(x))


@block("tokens", heads=(1, 2), each=(2, 4), how=("decoder", "cross", "weights", "bias_kv", "sizes"))
class Cross(nn.Module):
    """torch's own attention between two sequences."""

    def __init__(self, shape: Shape, heads: int, each: int, how: str) -> None:
        super().__init__()
        width = heads * each
        self.how = how
        self.into, self.other = nn.Linear(shape[-1], width), nn.Linear(shape[-1], width)
        if how == "decoder":
            self.layer = nn.TransformerDecoderLayer(width, heads, 3, 0.0, batch_first=True)
        elif how == "sizes":
            self.layer = nn.MultiheadAttention(
                width, heads, batch_first=True, kdim=shape[-1], vdim=shape[-1]
            )
        else:
            self.layer = nn.MultiheadAttention(
                width, heads, add_bias_kv=how == "bias_kv", add_zero_attn=how == "bias_kv"
            )

    def forward(self, x: Tensor) -> Tensor:
        q, m = self.into(x), self.other(x)
        if self.how == "decoder":
            return self.layer(q, m)
        if self.how == "sizes":
            return q + self.layer(q, x, x)[0]
        q, m = q.transpose(0, 1), m.transpose(0, 1)
        y, weights = self.layer(q, m, m, need_weights=self.how == "weights")
        y = y.transpose(0, 1)
        return y * weights.amax(-1, keepdim=True) if weights is not None else y


@block("tokens", width=WIDTHS, how=("tied", "plain", "bag", "padded", "hot"))
class Vocabulary(nn.Module):
    """Tokens become numbers, are looked up, and are perhaps told apart by the same table."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        self.how = how
        kind = nn.EmbeddingBag if how == "bag" else nn.Embedding
        self.table = kind(5, width, padding_idx=0 if how == "padded" else None)
        self.map = nn.Linear(width, width)
        self.head = nn.Linear(width, 5, bias=False)
        if how == "tied":
            self.head.weight = self.table.weight
        self.given = nn.Linear(shape[-1], width)

    def forward(self, x: Tensor) -> Tensor:
        ids = (x > 0).sum(-1).clamp(max=4)
        if self.how == "bag":
            y = self.table(ids)[:, None]
        elif self.how == "hot":
            y = F.one_hot(ids, 5).to(x.dtype) @ self.table.weight
        else:
            y = self.table(ids)
        y = self.map(y + self.given(x)).tanh()
        return self.head(y) if self.how == "tied" else y


@block("tokens", heads=(2, 1, 3), each=(2, 3), how=("einsum", "linear", "covariance", "talking",
       "relative", "alibi", "kernel", "qk_norm", "cosine", "sink"))  # fmt: skip
class Heads(nn.Module):
    """Attention with a weight for each head, in the variants that papers have."""

    def __init__(self, shape: Shape, heads: int, each: int, how: str) -> None:
        super().__init__()
        _, t, c = shape
        self.how, self.heads = how, heads
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(heads, c, each)) for _ in range(3))
        self.wo = nn.Parameter(torch.randn(heads, each, c))
        self.mix = nn.Parameter(torch.randn(heads, heads))
        self.bias = nn.Parameter(torch.randn(heads, t, t))
        self.slopes = nn.Buffer(torch.rand(heads))
        self.norm = nn.LayerNorm(each)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("ntc,hcd->nhtd", x, self.wq)
        k = torch.einsum("nsc,hcd->nhsd", x, self.wk)
        v = torch.einsum("nsc,hcd->nhsd", x, self.wv)
        y = self.attend(q, k, v, x.shape[1])
        if self.how == "sink":
            return torch.einsum("nhtd,hdc->nhtc", y, self.wo).sum(1)
        return torch.einsum("nhtd,hdc->ntc", y, self.wo)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, t: int) -> Tensor:
        if self.how == "linear":
            return q.softmax(-1) @ (k.softmax(-2).mT @ v)
        if self.how == "kernel":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            return (q @ (k.mT @ v)) / (q @ k.sum(-2).unsqueeze(-1) + 1)
        if self.how == "covariance":
            q, k = F.normalize(q, dim=-2), F.normalize(k, dim=-2)
            return ((q.mT @ k * self.scale).softmax(-1) @ v.mT).mT
        if self.how == "qk_norm":
            q, k = self.norm(q), self.norm(k)
        if self.how == "cosine":
            q, k = F.normalize(q, dim=-1) * self.scale.exp(), F.normalize(k, dim=-1)
        weights = torch.einsum("nhtd,nhsd->nhts", q, k)
        if self.how == "relative":
            weights = weights + self.bias[:, :t, :t] if t <= self.bias.shape[1] else weights
        if self.how == "alibi":
            far = torch.arange(t)[None, :] - torch.arange(t)[:, None]
            weights = weights - self.slopes[:, None, None] * far.abs()
        weights = weights.softmax(-1)
        if self.how == "talking":
            weights = torch.einsum("nhts,hg->ngts", weights, self.mix)
        return weights @ v


@block("tokens", heads=(2, 1), pairs=(1, 2), how=("laced", "complex", "halves", "split"))
class Rotary(nn.Module):
    """Pairs of dimensions are turned by an angle, in the four ways it is written."""

    def __init__(self, shape: Shape, heads: int, pairs: int, how: str) -> None:
        super().__init__()
        self.heads, self.how = heads, how
        width = 2 * heads * pairs
        self.qkv, self.out = nn.Linear(shape[-1], 3 * width), nn.Linear(width, shape[-1])
        self.speed = nn.Buffer(torch.rand(pairs))

    def turn(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[-2])[:, None].to(x) * self.speed
        cos, sin = angle.cos(), angle.sin()
        if self.how == "laced":
            a, b = x[..., ::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        if self.how == "complex":
            z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
            return torch.view_as_real(z * torch.complex(cos, sin)).flatten(-2)
        if self.how == "halves":
            half = x.shape[-1] // 2
            a, b = x[..., :half], x[..., half:]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        a, b = x.unflatten(-1, (2, -1)).unbind(-2)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(self.turn(q), self.turn(k), v)
        return self.out(y.transpose(1, 2).reshape(n, t, -1))


@block("tokens", rank=(3, 2), heads=(2, 1), each=(2, 3))
class LatentAttention(nn.Module):
    """Keys and values from a small latent, and one rotated key for all heads, as in DeepSeek."""

    def __init__(self, shape: Shape, rank: int, heads: int, each: int) -> None:
        super().__init__()
        c = shape[-1]
        self.heads, self.each, self.rank = heads, each, rank
        self.q = nn.Linear(c, heads * (each + 2))
        self.down, self.norm = nn.Linear(c, rank + 2), nn.RMSNorm(rank)
        self.up = nn.Linear(rank, heads * 2 * each, bias=False)
        self.out = nn.Linear(heads * each, c)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.heads, -1).transpose(1, 2)
        q, turned = q.split([self.each, 2], -1)
        latent, key = self.down(x).split([self.rank, 2], -1)
        k, v = self.up(self.norm(latent)).view(n, t, self.heads, -1).transpose(1, 2).chunk(2, -1)
        key = key[:, None].expand(-1, self.heads, -1, -1)
        q, k = torch.cat([q, turned.sin()], -1), torch.cat([k, key.sin()], -1)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


@block("tokens", hidden=(3, 2, 4), how=("mixer", "gating", "fourier", "shift"))
class TokenMixing(nn.Module):
    """Tokens speak to each other without attention."""

    def __init__(self, shape: Shape, hidden: int, how: str) -> None:
        super().__init__()
        _, t, c = shape
        self.how = how
        self.up, self.down = nn.Linear(t, hidden), nn.Linear(hidden, t)
        self.wide, self.narrow = nn.Linear(c, 2 * hidden), nn.Linear(hidden, c)
        self.norm, self.space = nn.LayerNorm(hidden), nn.Linear(t, t)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "mixer":
            return x + self.down(F.gelu(self.up(x.mT))).mT
        if self.how == "gating":
            u, v = F.gelu(self.wide(x)).chunk(2, -1)
            return self.narrow(u * self.space(self.norm(v).mT).mT)
        if self.how == "fourier":
            return torch.fft.fft(x, dim=1).real
        before = F.pad(x, (0, 0, 1, -1))
        return torch.cat([before[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]], -1)


@block("tokens", width=(3, 2, 4), how=("lstm", "gru", "rnn", "projected", "last_first"))
class Cells(nn.Module):
    """Recurrent cells stepped by hand, and recurrent layers with a projection."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        c, self.how, self.width = shape[-1], how, width
        if how == "projected":
            self.cell = nn.LSTM(c, width + 1, proj_size=width, batch_first=True)
        elif how == "last_first":
            self.cell, self.more = nn.GRU(c, width), nn.GRU(width, width)
        else:
            self.cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[how](c, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "projected":
            return self.cell(x)[0]
        if self.how == "last_first":
            y, h = self.cell(x.transpose(0, 1))
            return self.more(y, h)[0].transpose(0, 1)
        h = c = x.new_zeros(len(x), self.width)
        out = []
        for token in x.unbind(1):
            if self.how == "lstm":
                h, c = self.cell(token, (h, c))
            else:
                h = self.cell(token, h)
            out.append(h)
        return torch.stack(out, 1)


@block("tokens", inner=(4, 2, 3), state=(2, 3), rank=(1, 2))
class StateSpace(nn.Module):
    """A selective state space, as in Mamba, scanned by a loop."""

    def __init__(self, shape: Shape, inner: int, state: int, rank: int) -> None:
        super().__init__()
        c = shape[-1]
        self.rank, self.state = rank, state
        self.into, self.out = nn.Linear(c, 2 * inner, bias=False), nn.Linear(inner, c)
        self.conv = nn.Conv1d(inner, inner, 3, padding=2, groups=inner)
        self.say, self.time = nn.Linear(inner, rank + 2 * state), nn.Linear(rank, inner)
        self.rate = nn.Parameter(torch.rand(inner, state))
        self.skip = nn.Parameter(torch.randn(inner))

    def forward(self, x: Tensor) -> Tensor:
        t = x.shape[1]
        x, gate = self.into(x).chunk(2, -1)
        x = F.silu(self.conv(x.mT)[..., :t].mT)
        dt, b, c = self.say(x).split([self.rank, self.state, self.state], -1)
        dt = F.softplus(self.time(dt))
        decay = torch.exp(-dt.unsqueeze(-1) * self.rate.exp())
        fed = dt.unsqueeze(-1) * b.unsqueeze(2) * x.unsqueeze(-1)
        h = torch.zeros(())
        out = []
        for i in range(t):
            h = decay[:, i] * h + fed[:, i]
            out.append(torch.einsum("nds,ns->nd", h, c[:, i]))
        return self.out((torch.stack(out, 1) + x * self.skip) * F.silu(gate))


@block("tokens", bodies=1, times=(2, 3), how=("same", "listed", "halted"))
class Loop(nn.Module):
    """One layer over and over, as in ALBERT; or one layer in several places of a list."""

    def __init__(self, shape: Shape, body: nn.Module, times: int, how: str) -> None:
        super().__init__()
        c = shape[-1]
        layer = nn.Sequential(nn.Linear(c, 4), nn.ReLU(), nn.Linear(4, c))
        self.layers = nn.ModuleList([layer] * times) if how == "listed" else layer
        self.times, self.how, self.body = times, how, body
        self.norm, self.halt = nn.LayerNorm(c), nn.Linear(c, 1)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.layers, nn.ModuleList):
            for layer in self.layers:
                x = x + layer(x)
        else:
            for _ in range(self.times):
                more = self.layers(self.norm(x))
                x = x + (more * self.halt(x).sigmoid() if self.how == "halted" else more)
        return self.body(x)
