"""Layers of images: convolutions, shuffles, channel attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FLAG, WIDTHS, Shape, block, dividing


@block("image", width=WIDTHS, kernel=(1, 3), stride=(1, 2), dilation=(1, 2), groups=(1, 2, 3),
       bias=(True, False), norm=("none", "weight", "old", "spectral"), frozen=FLAG)  # fmt: skip
class Conv(nn.Sequential):
    """A convolution, perhaps grouped, with a reparametrised weight, or frozen."""

    def __init__(
        self, shape: Shape, width: int, kernel: int, stride: int, dilation: int, groups: int,
        bias: bool, norm: str, frozen: bool,
    ) -> None:  # fmt: skip
        groups = dividing(shape[1], width, groups)
        stride = stride if shape[2] > 3 else 1
        conv = nn.Conv2d(
            shape[1], width, kernel, stride, dilation * (kernel // 2), dilation, groups, bias
        )
        if norm == "weight":
            nn.utils.parametrizations.weight_norm(conv)
        elif norm == "old":
            nn.utils.weight_norm(conv)
        elif norm == "spectral":
            nn.utils.parametrizations.spectral_norm(conv)
        super().__init__(conv.requires_grad_(not frozen))


@block("image", times=(1, 2), kernel=(3, 1))
class Depthwise(nn.Sequential):
    """Every channel has its own filters."""

    def __init__(self, shape: Shape, times: int, kernel: int) -> None:
        c = shape[1]
        super().__init__(nn.Conv2d(c, times * c, kernel, padding=kernel // 2, groups=c))


@block("image", width=WIDTHS, stride=(1, 2), groups=(1, 2, 99))
class Deconv(nn.Sequential):
    """A transposed convolution; 99 groups stand for one for each channel."""

    def __init__(self, shape: Shape, width: int, stride: int, groups: int) -> None:
        c = shape[1]
        groups = c if groups == 99 else dividing(c, width, groups)
        width = c if groups == c else width
        stride = stride if shape[2] < 8 else 1
        super().__init__(nn.ConvTranspose2d(c, width, 2, stride, groups=groups))


@block("image", kind=("max", "avg", "up"))
class Resize(nn.Module):
    def __init__(self, shape: Shape, kind: str) -> None:
        super().__init__()
        small, large = shape[2] < 2, shape[2] > 7
        self.kind = "up" if small else "avg" if large and kind == "up" else kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return (F.max_pool2d if self.kind == "max" else F.avg_pool2d)(x, 2)


@block("image", groups=(2, 3, 4), how=("module", "shape", "number", "minus", "flatten"))
class Shuffle(nn.Module):
    """Channels (g × n) become (n × g), as in ShuffleNet."""

    def __init__(self, shape: Shape, groups: int, how: str) -> None:
        super().__init__()
        self.groups, self.how = dividing(groups, shape[1]), how
        self.shuffle = nn.ChannelShuffle(self.groups)
        self._each = shape[1] // self.groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if self.how == "module":
            return self.shuffle(x)
        if self.how == "shape":
            x = x.view(n, self.groups, c // self.groups, h, w)
        elif self.how == "number":
            x = x.view(n, self.groups, self._each, h, w)
        else:
            x = x.view(n, self.groups, -1, h, w)
        x = x.transpose(1, 2).contiguous()
        return x.flatten(1, 2) if self.how == "flatten" else x.view(n, -1, h, w)


@block("image", down=FLAG, how=("module", "view"))
class PixelShuffle(nn.Module):
    """Channels become pixels, or pixels channels."""

    def __init__(self, shape: Shape, down: bool, how: str) -> None:
        super().__init__()
        self.down, self.how = (down or shape[2] > 7) and shape[2] % 2 == 0, how
        self.before = nn.Identity() if self.down else nn.Conv2d(shape[1], 4 * shape[1], 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.how == "module":
            return F.pixel_unshuffle(x, 2) if self.down else F.pixel_shuffle(x, 2)
        n, c, h, w = x.shape
        if self.down:
            x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
            return x.reshape(n, c * 4, h // 2, w // 2)
        x = x.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // 4, h * 2, w * 2)


@block("image", width=WIDTHS, how=("linear", "conv", "direct"), gate=("sigmoid", "softmax"))
class SqueezeExcite(nn.Module):
    """Channels are weighed by what their means say."""

    def __init__(self, shape: Shape, width: int, how: str, gate: str) -> None:
        super().__init__()
        c = shape[1]
        kind = nn.Linear if how == "linear" else lambda i, o: nn.Conv2d(i, o, 1)
        self.how, self.gate = how, gate
        self.first, self.second = kind(c, width), kind(width, c)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "linear":
            y = self.second(F.relu(self.first(x.mean((2, 3)))))[:, :, None, None]
        elif self.how == "conv":
            y = self.second(F.silu(self.first(F.adaptive_avg_pool2d(x, 1))))
        else:
            y = x.amax((2, 3), keepdim=True)
        return x * (y.sigmoid() if self.gate == "sigmoid" else y.softmax(1))


@block("image", max_too=FLAG)
class SpatialAttention(nn.Module):
    """Pixels are weighed by the mean, and perhaps the maximum, of their channels."""

    def __init__(self, shape: Shape, max_too: bool) -> None:
        super().__init__()
        self.max_too = max_too
        self.conv = nn.Conv2d(1 + max_too, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean(1, keepdim=True)
        if self.max_too:
            y = torch.cat([y, x.max(1, keepdim=True)[0]], 1)
        return x * self.conv(y).sigmoid()


@block("image", width=WIDTHS, branches=(2, 3))
class SelectiveKernel(nn.Module):
    """Branches are weighed against each other, channel by channel."""

    def __init__(self, shape: Shape, width: int, branches: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(shape[1], width, 1) for _ in range(branches))
        self.squeeze = nn.Conv2d(width, 2, 1)
        self.attend = nn.Conv2d(2, width * branches, 1)
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([conv(x) for conv in self.convs], dim=1)
        z = self.attend(F.relu(self.squeeze(y.sum(1).mean((2, 3), keepdim=True))))
        n, _, c, _, _ = y.shape
        return (y * z.view(n, self.branches, c, 1, 1).softmax(1)).sum(1)


@block("image", width=(4, 2, 6, 8), heads=(1, 2))
class PixelAttention(nn.Module):
    """Attention between pixels, with q, k and v from one convolution."""

    def __init__(self, shape: Shape, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(shape[1], 3 * width, 1)
        self.out = nn.Conv2d(width, shape[1], 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, self.heads, -1, h * w).chunk(3, dim=2)
        weights = (q.transpose(-2, -1) @ k / q.shape[2] ** 0.5).softmax(-1)
        return self.out((v @ weights.transpose(-2, -1)).reshape(n, -1, h, w))


@block("image", over=("channels", "pixels"))
class SelfSimilarity(nn.Module):
    """h @ h.T, between channels or between pixels."""

    def __init__(self, shape: Shape, over: str) -> None:
        super().__init__()
        self.over = over

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(2)
        if self.over == "channels":
            y = (y @ y.transpose(1, 2)).softmax(-1) @ y
        else:
            y = y @ (y.transpose(1, 2) @ y).softmax(-1)
        return y.view_as(x)
