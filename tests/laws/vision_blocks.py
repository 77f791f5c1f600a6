"""Layers of vision models: windows, channels last, pooling and padding of all kinds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, dividing


@block("image", width=WIDTHS, how=("plain", "response", "scale", "modulated"))
class ConvNext(nn.Module):
    """Depthwise, then a norm and linear layers with channels last, and back."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        c = shape[1]
        self.how = how
        self.depthwise = nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.norm = nn.LayerNorm(c)
        self.up, self.down = nn.Linear(c, width), nn.Linear(width, c)
        self.gamma = nn.Parameter(torch.randn(width if how == "response" else c))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = F.gelu(self.up(y))
        if self.how == "response":
            size = y.norm(dim=(1, 2), keepdim=True)
            y = y + self.gamma * (y * size / (size.mean(-1, keepdim=True) + 1e-6))
        y = self.down(y)
        if self.how == "scale":
            y = y * self.gamma
        y = y.permute(0, 3, 1, 2)
        return x * y if self.how == "modulated" else x + y


@block("image", heads=(2, 1, 3), each=(2, 3), shifted=FLAG, bias=FLAG)
class Windows(nn.Module):
    """Attention inside windows of pixels, as in Swin, with a bias for each head."""

    def __init__(self, shape: Shape, heads: int, each: int, shifted: bool, bias: bool) -> None:
        super().__init__()
        c, side = shape[1], shape[2]
        self.size = 2 if side % 2 == 0 else 1
        self.heads, self.shifted = heads, shifted
        self.scale = each**-0.5
        self.qkv, self.out = nn.Linear(c, 3 * heads * each), nn.Linear(heads * each, c)
        many = self.size**2
        self.table = nn.Parameter(torch.randn(many * many, heads)) if bias else None
        self.places = nn.Buffer(torch.arange(many * many).view(many, many))

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.size
        if self.shifted:
            x = x.roll((-1, -1), (2, 3))
        y = x.permute(0, 2, 3, 1).view(n, h // s, s, w // s, s, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        qkv = self.qkv(y).reshape(len(y), s * s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = (q * self.scale) @ k.transpose(-2, -1)
        if self.table is not None:
            weights = weights + self.table[self.places].permute(2, 0, 1)
        y = (weights.softmax(-1) @ v).transpose(1, 2).reshape(len(y), s * s, -1)
        y = self.out(y).view(n, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5)
        y = y.reshape(n, h, w, c).permute(0, 3, 1, 2)
        return y.roll((1, 1), (2, 3)) if self.shifted else y


@block("image", groups=(2, 1, 3))
class Involution(nn.Module):
    """Every pixel has its own filter, shared by the channels of a group."""

    def __init__(self, shape: Shape, groups: int) -> None:
        super().__init__()
        c = shape[1]
        self.groups = dividing(groups, c)
        self.reduce, self.span = nn.Conv2d(c, 2, 1), nn.Conv2d(2, 9 * self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        kernel = self.span(self.reduce(x)).view(n, self.groups, 1, 9, h, w)
        patches = F.unfold(x, 3, padding=1).view(n, self.groups, c // self.groups, 9, h, w)
        return (patches * kernel).sum(3).view(n, c, h, w)


@block("image", width=WIDTHS, norm=FLAG)
class Coordinates(nn.Module):
    """Rows and columns are summed up side by side, and gate the pixels, as in CoordAttention."""

    def __init__(self, shape: Shape, width: int, norm: bool) -> None:
        super().__init__()
        self.shared = nn.Conv2d(shape[1], width, 1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.rows, self.columns = (nn.Conv2d(width, shape[1], 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).mT
        y = F.hardswish(self.norm(self.shared(torch.cat([rows, columns], 2))))
        rows, columns = y.split([h, w], 2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.mT).sigmoid()


@block("image", width=WIDTHS, how=("encoder", "standard", "modulated", "shared", "pad", "reflect",
                                    "same", "third", "asymmetric", "dilated_up"))  # fmt: skip
class OddConv(nn.Module):
    """Convolutions with a weight made by hand, or in a mode of their own."""

    def __init__(self, shape: Shape, width: int, how: str) -> None:
        super().__init__()
        c = shape[1]
        how = "pad" if how == "reflect" and shape[2] < 2 else how
        self.how = how
        self.weight = nn.Parameter(torch.randn(width, c, 3, 3))
        self.style = nn.Linear(c, c)
        if how == "reflect":
            self.conv = nn.Conv2d(c, width, 3, padding=1, padding_mode="reflect")
        elif how == "same":
            self.conv = nn.Conv2d(c, width, (3, 2), padding="same", dilation=2)
        elif how == "third":
            self.conv = nn.Conv3d(c, width, (1, 3, 3), padding=(0, 1, 1))
        elif how == "asymmetric":
            self.conv = nn.Sequential(
                nn.Conv2d(c, width, (1, 3), padding=(0, 1)),
                nn.Conv2d(width, c, (3, 1), padding=(1, 0)),
            )
        elif how == "dilated_up":
            groups = dividing(c, width)
            self.conv = nn.ConvTranspose2d(
                c, width, 3, padding=2, dilation=2, groups=groups, bias=False
            )

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        if self.how == "encoder":
            return F.conv_transpose2d(F.relu(F.conv2d(x, w, padding=1)), w, padding=1)
        if self.how == "standard":
            w = w - w.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, w / (w.std((1, 2, 3), keepdim=True) + 1e-5), padding=1)
        if self.how == "modulated":
            style = self.style(x.mean((2, 3)))
            return F.conv2d(x * style[:, :, None, None], w, padding=1)
        if self.how == "shared":
            return torch.cat([F.conv2d(x, w, padding=p, dilation=p) for p in (1, 2)], 1)
        if self.how == "pad":
            return F.conv2d(F.pad(x, (1, 1, 1, 1), value=0.3), w)
        if self.how == "third":
            return self.conv(torch.stack([x, -x], 2)).amax(2)
        return self.conv(x)


@block("image", how=("adaptive", "unpool", "lp", "ceil", "bilinear", "fixed", "max_indices",
                     "avg_adaptive", "soft"))  # fmt: skip
class Pool(nn.Module):
    """Pooling, and what undoes it."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        self.how = "adaptive" if shape[2] < 2 else how
        self.filter = nn.Buffer(torch.ones(shape[1], 1, 2, 2) / 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "adaptive":
            return F.adaptive_max_pool2d(x, 2)
        if self.how == "avg_adaptive":
            return F.adaptive_avg_pool2d(x, (2, 2))
        if self.how == "unpool":
            y, where = F.max_pool2d(x, 2, return_indices=True)
            return F.max_unpool2d(y, where, [2, 2], output_size=x.shape[2:])
        if self.how == "max_indices":
            return F.max_pool2d(x, 3, stride=1, padding=1, dilation=1) - x
        if self.how == "lp":
            return F.lp_pool2d(x.relu() + 0.1, 2, 2)
        if self.how == "ceil":
            return F.avg_pool2d(x, 2, padding=1, ceil_mode=True, count_include_pad=False)
        if self.how == "bilinear":
            return F.interpolate(x, size=x.shape[2:], mode="bicubic", align_corners=False)
        if self.how == "soft":
            return x * x.flatten(2).softmax(-1).view_as(x)
        return F.conv2d(x, self.filter, stride=1, groups=x.shape[1])


@block(
    "image", how=("local", "all", "tracked", "plain", "functional", "layer_last", "group_by_hand")
)
class OddNorm(nn.Module):
    """Normalisations in the ways that are not the usual ones."""

    def __init__(self, shape: Shape, how: str) -> None:
        super().__init__()
        c = shape[1]
        self.how = "all" if how == "tracked" and shape[2] < 2 else how
        self.groups = dividing(c, 2)
        if self.how == "all":
            self.norm = nn.LayerNorm(list(shape[1:]))
        elif self.how == "tracked":
            self.norm = nn.InstanceNorm2d(c, affine=True, track_running_stats=True)
        elif self.how == "plain":
            self.norm = nn.BatchNorm2d(c, track_running_stats=False)
        self.weight, self.bias = nn.Parameter(torch.randn(c)), nn.Parameter(torch.randn(c))
        self.mean, self.var = nn.Buffer(torch.randn(c)), nn.Buffer(torch.rand(c) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "local":
            return F.local_response_norm(x, 3)
        if self.how == "functional":
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias)
        if self.how == "layer_last":
            y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], self.weight, self.bias)
            return y.permute(0, 3, 1, 2)
        if self.how == "group_by_hand":
            y = x.reshape(len(x), self.groups, -1)
            y = (y - y.mean(-1, keepdim=True)) / (
                y.var(-1, keepdim=True, correction=0) + 1e-5
            ).sqrt()
            return y.view_as(x) * self.weight[:, None, None] + self.bias[:, None, None]
        return self.norm(x)


@block("image", bodies=1, up=("nearest", "transposed", "shuffle"))
class UNet(nn.Module):
    """Down, through other layers, up again, and beside what was there."""

    def __init__(self, shape: Shape, body: nn.Module, up: str) -> None:
        super().__init__()
        c = shape[1]
        self.up, self.body = up, body
        self.down = nn.Conv2d(c, c, 1)
        with torch.no_grad():
            inner = body.eval()(torch.zeros(list(shape))).shape[1]
        self.transposed = nn.ConvTranspose2d(inner, 2, 2, 2)
        self.widen = nn.Conv2d(inner, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.down(x))
        if self.up == "transposed":
            y = self.transposed(y)
        elif self.up == "shuffle":
            y = F.pixel_shuffle(self.widen(y), 2)
        if y.shape[2:] != x.shape[2:]:
            y = F.interpolate(y, size=x.shape[2:])
        return torch.cat([x, y], 1)


@block("image", width=(4, 2, 3), radix=(2, 3), groups=(1, 2))
class SplitAttention(nn.Module):
    """Grouped branches weighed against each other, as in ResNeSt."""

    def __init__(self, shape: Shape, width: int, radix: int, groups: int) -> None:
        super().__init__()
        groups = dividing(groups, shape[1], width)
        self.radix, self.groups = radix, groups
        self.conv = nn.Conv2d(shape[1], width * radix, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(width * radix)
        self.first = nn.Conv2d(width, 2 * groups, 1, groups=groups)
        self.second = nn.Conv2d(2 * groups, width * radix, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        n, c, h, w = x.shape
        y = x.reshape(n, self.radix, c // self.radix, h, w)
        z = self.second(self.first(y.sum(1).mean((2, 3), keepdim=True)).relu())
        z = z.view(n, self.groups, self.radix, -1).transpose(1, 2).softmax(1).reshape(n, -1)
        z = z.view(n, self.radix, c // self.radix, 1, 1)
        return (y * z).sum(1)
