"""Nets that give back an image, and nets with unusual norms, activations or wiring."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, floats, image
from .convnets import classifier, conv_norm


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = conv_norm(3, 16), conv_norm(16, 32)
        self.middle = conv_norm(32, 48)
        self.up2 = nn.ConvTranspose2d(48, 32, 2, stride=2)
        self.merge2 = conv_norm(64, 32)
        self.up1 = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.merge1 = conv_norm(32, 24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        x = F.relu(self.middle(F.max_pool2d(two, 2)))
        x = F.relu(self.merge2(torch.cat((two, self.up2(x)), 1)))
        x = F.relu(self.merge1(torch.cat((one, self.up1(x)), 1)))
        return self.head(x)


class FeaturePyramid(nn.Module):
    """Every level is upsampled onto the next, and one shared head reads them all."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 32, 48]
        self.stem = conv_norm(3, 16, 3, 2)
        self.stages = nn.ModuleList(
            conv_norm(inputs, outputs, 3, 2) for inputs, outputs in pairwise(widths)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, 24, 1) for width in widths)
        self.head = nn.Sequential(nn.Conv2d(24, 28, 3, padding=1), nn.ReLU(), nn.Conv2d(28, 7, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = [F.relu(self.stem(x))]
        for stage in self.stages:
            levels.append(F.relu(stage(levels[-1])))
        merged: list[Tensor] = []
        for lateral, level in zip(reversed(self.lateral), reversed(levels), strict=True):
            top = lateral(level)
            if merged:
                top = top + F.interpolate(merged[-1], size=level.shape[-2:], mode="nearest")
            merged.append(top)
        return [self.head(level) for level in merged]


class DilatedPyramid(nn.Module):
    """Parallel dilated convolutions and a pooled branch broadcast back to full size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, 3, 2)
        self.branches = nn.ModuleList(
            nn.Conv2d(32, 16, 3, padding=dilation, dilation=dilation) for dilation in (1, 2, 3)
        )
        self.pooled = nn.Conv2d(32, 24, 1)
        self.project = conv_norm(72, 40, 1)
        self.head = nn.Conv2d(40, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        x = F.relu(self.stem(x))
        parts = [F.relu(branch(x)) for branch in self.branches]
        pooled = F.relu(self.pooled(F.adaptive_avg_pool2d(x, 1)))
        parts.append(pooled.expand(-1, -1, *x.shape[-2:]))
        x = self.head(F.relu(self.project(torch.cat(parts, 1))))
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class HighResolution(nn.Module):
    """Two resolutions run side by side and are added into each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.fall = conv_norm(16, 32, 3, 2)
        self.high, self.low = conv_norm(16, 16), conv_norm(32, 32)
        self.rise = conv_norm(32, 16, 1)
        self.sink = conv_norm(16, 32, 3, 2)
        self.head = classifier(48)

    def forward(self, x: Tensor) -> Tensor:
        high = F.relu(self.stem(x))
        low = F.relu(self.fall(high))
        high, low = F.relu(self.high(high)), F.relu(self.low(low))
        up = F.interpolate(self.rise(low), scale_factor=2)
        high, low = F.relu(high + up), F.relu(low + self.sink(high))
        return self.head(torch.cat((F.avg_pool2d(high, 2), low), 1))


class SuperResolution(nn.Module):
    """Pixel shuffle turns 4 channels at a time into a 2x2 patch; one is hidden, one final."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 24, 5, padding=2)
        self.body = nn.Sequential(
            nn.Conv2d(24, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)
        )
        self.up = nn.Sequential(nn.Conv2d(24, 64, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(16))
        self.tail = nn.Sequential(nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        return self.tail(self.up(x + 0.5 * self.body(x)))


class SpaceToDepth(nn.Module):
    """Pixel unshuffle on hidden features: each channel becomes four."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.mix = conv_norm(64, 36)
        self.head = classifier(36)

    def forward(self, x: Tensor) -> Tensor:
        x = self.unshuffle(F.relu(self.stem(x)))
        return self.head(F.relu(self.mix(x)))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 25, 13),
        nn.Linear(13, 32 * 25),
        nn.Unflatten(1, (32, 5, 5)),
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 3, 2, 1, output_padding=1),
        nn.Tanh(),
    )


class GroupedTransposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, 3, 2)
        self.up = nn.ConvTranspose2d(32, 48, 4, 2, 1, groups=4, bias=False)
        self.norm = nn.BatchNorm2d(48)
        self.up_each = nn.ConvTranspose2d(48, 48, 2, 2, groups=48)
        self.head = nn.Conv2d(48, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.up(F.relu(self.stem(x)))))
        return self.head(F.relu(self.up_each(x)))


def group_norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, bias=False),
        nn.GroupNorm(4, 32),
        nn.SiLU(),
        nn.Conv2d(32, 48, 3, bias=False),
        nn.GroupNorm(6, 48),
        nn.SiLU(),
        nn.Conv2d(48, 24, 3),
        nn.GroupNorm(1, 24),
        classifier(24),
    )


def instance_norm_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, padding_mode="reflect"),
        nn.InstanceNorm2d(24, affine=True),
        nn.ReLU(),
        nn.Conv2d(24, 32, 3, 2, 1),
        nn.InstanceNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 36, 3, padding=1),
        nn.InstanceNorm2d(36, affine=True, track_running_stats=True),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(36, 3, 3, padding=1),
    )


def prelu_net() -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 16),
        nn.PReLU(16),
        conv_norm(16, 32, 3, 2),
        nn.PReLU(),
        conv_norm(32, 48),
        nn.PReLU(48),
        classifier(48),
    )


class StochasticDepth(nn.Module):
    """Residual branches that training drops at random and evaluation always keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm(32, 24), nn.ReLU(), conv_norm(24, 32)) for _ in range(2)
        )
        self.head = classifier(32)
        self.drop = 0.2

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            if not self.training:
                x = F.relu(x + block(x))
            elif torch.rand(()) >= self.drop:
                x = F.relu(x + block(x) / (1 - self.drop))
        return self.head(x)


class SpatialTransformer(nn.Module):
    """A small net looks at the image and says how to warp it for the main net."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(3, 12, 5, 2), nn.ReLU(), nn.Conv2d(12, 16, 3, 2), nn.ReLU(), nn.Flatten()
        )
        self.theta = nn.Sequential(nn.Linear(16 * 9, 28), nn.ReLU(), nn.Linear(28, 6))
        self.stem = conv_norm(3, 24)
        self.body = conv_norm(24, 40, 3, 2)
        self.head = classifier(40)

    def forward(self, x: Tensor) -> Tensor:
        theta = torch.tanh(self.theta(self.look(x))).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, align_corners=False)
        return self.head(F.relu(self.body(F.relu(self.stem(x)))))


class Siamese(nn.Module):
    """One tower is used twice, and only the distance of its two outputs is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            conv_norm(3, 24), nn.ReLU(), conv_norm(24, 36, 3, 2), nn.ReLU(), nn.Conv2d(36, 28, 3)
        )

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return (self.tower(left) - self.tower(right)).pow(2).mean((2, 3)).sum(1)


class Audio(nn.Module):
    """Strided convolutions on a waveform, then gated dilated ones with skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 24, 9, 4), nn.BatchNorm1d(24), nn.ReLU())
        self.gates = nn.ModuleList(
            nn.Conv1d(24, 56, 3, padding=2**step, dilation=2**step) for step in range(2)
        )
        self.residual = nn.ModuleList(nn.Conv1d(28, 24, 1) for _ in range(2))
        self.skip = nn.ModuleList(nn.Conv1d(28, 32, 1) for _ in range(2))
        self.head = nn.Linear(32, 11)

    def forward(self, wave: Tensor) -> Tensor:
        x = self.stem(wave)
        total = torch.zeros(())
        for gate, residual, skip in zip(self.gates, self.residual, self.skip, strict=True):
            value, control = gate(x).chunk(2, dim=1)
            y = torch.tanh(value) * torch.sigmoid(control)
            x = x + residual(y)
            total = total + skip(y)
        return self.head(F.relu(total).mean(-1))


def video() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm3d(16),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(16, 32, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(32, 32, (1, 3, 3), padding=(0, 1, 1), groups=2),
        nn.BatchNorm3d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(32, 11),
    )


def _net(
    name: str,
    model: Callable[[], nn.Module],
    inputs: Callable[[], Any] = image,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return case(name, model, inputs, family="dense prediction", cut=cut, note=note)


CASES = [
    _net("unet", UNet, note="transposed convolutions, skip concatenations"),
    _net("feature_pyramid", FeaturePyramid, note="shared head over several levels"),
    _net("dilated_pyramid", DilatedPyramid),
    _net("high_resolution", HighResolution),
    _net("pixel_shuffle", SuperResolution, cut="partly"),
    _net("pixel_unshuffle", SpaceToDepth),
    _net("conv_autoencoder", autoencoder, note="flatten and unflatten around the code"),
    _net("grouped_transposed", GroupedTransposed),
    _net("group_norm", group_norm_net, cut="partly"),
    _net("instance_norm", instance_norm_net),
    _net("prelu", prelu_net),
    _net("stochastic_depth", StochasticDepth),
    _net("spatial_transformer", SpatialTransformer, note="grid_sample"),
    _net("siamese", Siamese, lambda: (image(), image()), note="one module, two inputs"),
    _net("audio_conv1d", Audio, lambda: floats(1, 200), note="the last residual is never read"),
    _net("video_conv3d", video, lambda: floats(3, 4, 10, 10)),
]
