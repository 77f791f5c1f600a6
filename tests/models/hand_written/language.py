"""Token models: decoders, recurrent nets and sequence classifiers."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, floats, tokens

VOCAB, WIDTH = 53, 48


def rotate(x: Tensor, base: float = 100.0) -> Tensor:
    """Rotary positions: turn the two halves of each head against each other."""
    length, size = x.shape[-2:]
    rates = base ** (-torch.arange(0, size, 2) / size)
    angle = torch.arange(length)[:, None] * rates
    angle = torch.cat((angle, angle), -1)
    left, right = x.chunk(2, -1)
    return x * angle.cos() + torch.cat((-right, left), -1) * angle.sin()


class GroupedQuery(nn.Module):
    """More query heads than key and value heads; 1 of the latter is multi-query."""

    def __init__(self, heads: int, kv_heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, size
        self.q = nn.Linear(WIDTH, heads * size, bias=False)
        self.k = nn.Linear(WIDTH, kv_heads * size, bias=False)
        self.v = nn.Linear(WIDTH, kv_heads * size, bias=False)
        self.out = nn.Linear(heads * size, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = rotate(self.q(x).view(b, n, self.heads, self.size).transpose(1, 2))
        k = rotate(self.k(x).view(b, n, self.kv_heads, self.size).transpose(1, 2))
        v = self.v(x).view(b, n, self.kv_heads, self.size).transpose(1, 2)
        k = k.repeat_interleave(self.heads // self.kv_heads, 1)
        v = v.repeat_interleave(self.heads // self.kv_heads, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class GatedMLP(nn.Module):
    """SwiGLU with the two halves in one layer, split by chunk."""

    def __init__(self, width: int = WIDTH, hidden: int = 64) -> None:
        super().__init__()
        self.both, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class DecoderLayer(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.attention, self.mlp = attention, GatedMLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, kv_heads: int, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.layers = nn.ModuleList(DecoderLayer(GroupedQuery(4, kv_heads, 16)) for _ in range(2))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class RelativeBias(nn.Module):
    """Attention with a learned bias per head and distance, in buckets."""

    def __init__(self, heads: int = 4, reach: int = 3) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.bias = nn.Embedding(2 * reach + 1, heads)

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        distance = (place[None] - place[:, None]).clamp(-self.reach, self.reach) + self.reach
        bias = self.bias(distance).permute(2, 0, 1)
        q, k, v = self.qkv(x).split(WIDTH, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))


def relative_decoder() -> nn.Module:
    layers = (DecoderLayer(RelativeBias()) for _ in range(2))
    return nn.Sequential(nn.Embedding(VOCAB, WIDTH), *layers, nn.Linear(WIDTH, VOCAB))


class ParallelLinear(nn.Module):
    """One matrix makes q, k, v and the MLP's hidden units, one more joins what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.into = nn.Linear(WIDTH, 3 * WIDTH + 80)
        self.back = nn.Linear(WIDTH + 80, WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v, hidden = self.into(self.norm(x)).split([WIDTH, WIDTH, WIDTH, 80], -1)
        q, k, v = (part.unflatten(-1, (4, 12)).transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x + self.back(torch.cat((mixed, F.gelu(hidden)), -1)))


class Translator(nn.Module):
    """Torch's own encoder and decoder stacks, with a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCAB, WIDTH), nn.Embedding(VOCAB, WIDTH)
        self.body = nn.Transformer(WIDTH, 4, 2, 2, 64, batch_first=True)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        return self.head(self.body(self.source(source), self.target(target), tgt_mask=mask))


class Recurrent(nn.Module):
    """Embedding, LSTM or GRU, then a classifier on the last hidden states."""

    def __init__(
        self, cell: Callable[..., nn.RNNBase], layers: int = 1, both_ways: bool = False
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 24)
        self.cell = cell(24, 32, layers, batch_first=True, bidirectional=both_ways)
        self.middle = nn.Linear(64 if both_ways else 32, 40)
        self.head = nn.Linear(40, 11)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.cell(self.embed(ids))
        return self.head(F.relu(self.middle(states.mean(1))))


class LastState(nn.Module):
    """Reads the final hidden and memory states instead of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 24)
        self.cell = nn.LSTM(24, 28, 2, batch_first=True)
        self.head = nn.Linear(56, 11)

    def forward(self, x: Tensor) -> Tensor:
        _, (hidden, memory) = self.cell(torch.relu(self.lift(x)))
        return self.head(torch.cat((hidden[0], memory[1]), -1))


class CellLoop(nn.Module):
    """An LSTMCell stepped by hand, from a zero state made to fit the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(6, 24)
        self.cell = nn.LSTMCell(24, 36)
        self.head = nn.Linear(36, 11)

    def forward(self, x: Tensor) -> Tensor:
        hidden = memory = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in torch.relu(self.lift(x)).unbind(1):
            hidden, memory = self.cell(step, (hidden, memory))
        return self.head(hidden)


class ConvRecurrent(nn.Module):
    """Convolutions over a spectrogram, whose channels and rows feed a GRU together."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, (2, 1), 1)
        self.norm = nn.BatchNorm2d(16)
        self.cell = nn.GRU(16 * 5, 28, batch_first=True)
        self.head = nn.Linear(28, VOCAB)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)))
        states, _ = self.cell(x.permute(0, 3, 1, 2).flatten(2))
        return self.head(states).log_softmax(-1)


class TextConv(nn.Module):
    """Convolutions of several widths over the embeddings, max-pooled over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 24, padding_idx=0)
        self.convs = nn.ModuleList(nn.Conv1d(24, 32, size) for size in (2, 3, 4))
        self.head = nn.Linear(96, 11)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(conv(x)).amax(-1) for conv in self.convs], -1))


class Experts(nn.Module):
    """A soft mixture: every expert runs and the router weighs them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.router = nn.Linear(WIDTH, 3)
        self.up = nn.Parameter(torch.randn(3, WIDTH, 40) * 0.15)
        self.down = nn.Parameter(torch.randn(3, 40, WIDTH) * 0.15)
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        hidden = F.gelu(torch.einsum("bnc,ecd->bned", x, self.up))
        mixed = torch.einsum("bned,edc->bnec", hidden, self.down)
        return self.head(x + (self.router(x).softmax(-1)[..., None] * mixed).sum(2))


def _net(
    name: str,
    model: Callable[[], nn.Module],
    inputs: Callable[[], Any] = tokens,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return case(name, model, inputs, family="sequence", cut=cut, note=note)


def _pair() -> tuple[Tensor, Tensor]:
    return tokens(9), tokens(7)


CASES = [
    _net("decoder_gqa_rotary", lambda: Decoder(2), note="4 query heads on 2 key heads"),
    _net("decoder_multi_query", lambda: Decoder(1), note="4 query heads on 1 key head"),
    _net("decoder_tied", lambda: Decoder(4, tied=True), note="output weight is the embedding"),
    _net("decoder_relative_bias", relative_decoder),
    _net("decoder_parallel", ParallelLinear, note="qkv and MLP in one matrix"),
    _net("transformer_translator", Translator, _pair, note="nn.Transformer"),
    _net("lstm", lambda: Recurrent(nn.LSTM), cut="partly"),
    _net("lstm_two_layers", lambda: Recurrent(nn.LSTM, 2), cut="partly"),
    _net("lstm_both_ways", lambda: Recurrent(nn.LSTM, 2, True), cut="partly"),
    _net("lstm_last_state", LastState, lambda: floats(7, 6), cut="partly"),
    _net("lstm_cell_loop", CellLoop, lambda: floats(7, 6), cut="partly"),
    _net("gru", lambda: Recurrent(nn.GRU), cut="partly"),
    _net("conv_gru", ConvRecurrent, lambda: floats(1, 10, 13), cut="partly"),
    _net("text_conv", TextConv),
    _net("soft_experts", Experts, note="three-axis expert weights"),
]
