"""Transformers and mixers over image patches."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, image

WIDTH, HEADS, CLASSES = 48, 4, 11


class FusedReshape(nn.Module):
    """One linear layer for q, k and v, split by reshape(b, n, 3, heads, size)."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, c))


class FusedChunk(nn.Module):
    """One linear layer for q, k and v, split by chunk(3)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Multihead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Einsum(nn.Module):
    """Every product is an einsum, and the weights keep the heads as an axis of their own."""

    def __init__(self) -> None:
        super().__init__()
        size = WIDTH // HEADS
        self.query, self.key, self.value = (
            nn.Parameter(torch.randn(WIDTH, HEADS, size) * WIDTH**-0.5) for _ in range(3)
        )
        self.out = nn.Parameter(torch.randn(HEADS, size, WIDTH) * WIDTH**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("bnc,chd->bhnd", x, self.query)
        k = torch.einsum("bnc,chd->bhnd", x, self.key)
        v = torch.einsum("bnc,chd->bhnd", x, self.value)
        weights = torch.einsum("bhnd,bhmd->bhnm", q, k).mul(q.shape[-1] ** -0.5).softmax(-1)
        return torch.einsum("bhnm,bhmd,hdc->bnc", weights, v, self.out)


class LinearAttention(nn.Module):
    """Positive features in place of the softmax, so keys meet values first."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q = F.elu(self.q(x).view(b, n, HEADS, c // HEADS)) + 1
        k = F.elu(self.k(x).view(b, n, HEADS, c // HEADS)) + 1
        v = self.v(x).view(b, n, HEADS, c // HEADS)
        memory = torch.einsum("bnhd,bnhe->bhde", k, v)
        scale = 1 / torch.einsum("bnhd,bhd->bnh", q, k.sum(1))
        return self.out(torch.einsum("bnhd,bhde,bnh->bnhe", q, memory, scale).reshape(b, n, c))


class TalkingHeads(nn.Module):
    """Linear layers mix the heads before and after the softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.before, self.after = nn.Linear(HEADS, HEADS), nn.Linear(HEADS, HEADS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        scores = q @ k.mT / q.shape[-1] ** 0.5
        scores = self.before(scores.movedim(1, -1)).softmax(2)
        return self.out((self.after(scores).movedim(-1, 1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, attention: nn.Module, width: int = WIDTH, hidden: int = 96) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, a class token, learned positions, blocks; the class token is read out."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 5, stride=5)
        self.token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, 17, WIDTH) * 0.1)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


def vit(attention: type[nn.Module]) -> nn.Module:
    return VisionTransformer(*(Block(attention()) for _ in range(2)))


def vit_encoder_layer(norm_first: bool) -> nn.Module:
    return VisionTransformer(
        *(
            nn.TransformerEncoderLayer(
                WIDTH, HEADS, 80, activation="gelu", batch_first=True, norm_first=norm_first
            )
            for _ in range(2)
        )
    )


class WindowAttention(nn.Module):
    """Attention inside windows of 5x5 patches, with one bias per head and relative offset."""

    offset: Tensor

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads) * 0.5)
        ticks = torch.arange(window)
        places = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij")).flatten(1)
        offset = places[:, :, None] - places[:, None, :] + window - 1
        self.register_buffer("offset", offset[0] * (2 * window - 1) + offset[1])

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        size, rows, columns = self.window, h // self.window, w // self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(b, rows, size, columns, size, c).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, size * size, c)
        qkv = self.qkv(x).reshape(x.shape[0], size * size, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        scores = scores + self.bias[self.offset].permute(2, 0, 1)
        x = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x.view(b, rows, columns, size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(x, (self.shift, self.shift), (1, 2))


class Swin(nn.Module):
    """Two windowed blocks, a 2x2 patch merge, and one more block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 2, stride=2)
        self.first = nn.Sequential(
            Block(WindowAttention(24, 3, 5, 0), 24, 56), Block(WindowAttention(24, 3, 5, 2), 24, 56)
        )
        self.merge_norm, self.merge = nn.LayerNorm(96), nn.Linear(96, 48, bias=False)
        self.second = Block(WindowAttention(48, 6, 5, 0), 48, 64)
        self.head = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patch(x).permute(0, 2, 3, 1))
        corners = x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]
        x = self.merge(self.merge_norm(torch.cat(corners, -1)))
        return self.head(self.second(x).mean((1, 2)))


class MixerBlock(nn.Module):
    """Linear layers across the patches, then across the channels."""

    def __init__(self, patches: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.across = nn.Sequential(nn.Linear(patches, 28), nn.GELU(), nn.Linear(28, patches))
        self.within = nn.Sequential(nn.Linear(WIDTH, 80), nn.GELU(), nn.Linear(80, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.within(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 5, stride=5)
        self.blocks = nn.Sequential(MixerBlock(16), MixerBlock(16))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.patch(x).flatten(2).mT).mean(1))


class Perceiver(nn.Module):
    """A few learned queries read the patches by cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 36, 5, stride=5)
        self.queries = nn.Parameter(torch.randn(1, 5, WIDTH))
        self.cross = nn.MultiheadAttention(WIDTH, HEADS, kdim=36, vdim=36, batch_first=True)
        self.block = Block(FusedReshape())
        self.head = nn.Linear(5 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        queries = self.queries.expand(x.shape[0], -1, -1)
        read = self.cross(queries, patches, patches)[0]
        return self.head(self.block(queries + read).flatten(1))


class PoolFormer(nn.Module):
    """Average pooling in place of attention, with a per-channel scale on each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 4, 2, 1)
        self.norm1, self.norm2 = nn.GroupNorm(1, WIDTH), nn.GroupNorm(1, WIDTH)
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(WIDTH, 1, 1)) for _ in range(2))
        self.mlp = nn.Sequential(nn.Conv2d(WIDTH, 72, 1), nn.GELU(), nn.Conv2d(72, WIDTH, 1))
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        y = self.norm1(x)
        x = x + self.scale1 * (F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y)
        x = x + self.scale2 * self.mlp(self.norm2(x))
        return self.head(x.mean((2, 3)))


def _net(name: str, model: Callable[[], nn.Module], cut: Cut = "free", note: str = "") -> Case:
    return case(name, model, image, family="vision transformer", cut=cut, note=note)


CASES = [
    _net("vit_qkv_reshape", lambda: vit(FusedReshape), note="reshape(b, n, 3, heads, size)"),
    _net("vit_qkv_chunk", lambda: vit(FusedChunk), note="chunk(3), unflatten with -1"),
    _net("vit_multihead", lambda: vit(Multihead), note="nn.MultiheadAttention"),
    _net("vit_encoder_layer", lambda: vit_encoder_layer(False), note="has a fused fast path"),
    _net("vit_encoder_norm_first", lambda: vit_encoder_layer(True)),
    _net("vit_einsum", lambda: vit(Einsum), note="three-axis weights"),
    _net("vit_linear_attention", lambda: vit(LinearAttention)),
    _net("vit_talking_heads", lambda: vit(TalkingHeads), note="linear layers over the heads"),
    _net("swin", Swin, note="windows, rolls, relative position bias, patch merge"),
    _net("mixer", Mixer, note="linear layers over the patches"),
    _net("perceiver", Perceiver, note="learned queries, cross-attention, other key width"),
    _net("poolformer", PoolFormer),
]
