"""The residual networks for small images, ResNet-(6n+2) of He et al. (2016)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.zoo.layers import conv, scaled, start_convolutions

Shortcut: TypeAlias = Literal["A", "A-mean", "B"]


class Subsample(nn.Module):
    """Shortcut A: a coarser picture, and zeros for the channels that are new.

    Every second pixel is taken, or with `mean` the mean of four. The zeros stand on both sides of
    the channels, as in the networks that the published weights come from. Some public code
    pads `x.data` instead of `x`, which cuts the gradient of the shortcut; this keeps it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, mean: bool = False) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        """Compute the shortcut."""
        step = self.stride
        smaller = F.avg_pool2d(x, step) if self.mean else x[:, :, ::step, ::step]
        return F.pad(smaller, (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride == 1 and inputs == outputs:
            return
        if shortcut == "B":
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        else:
            self.shortcut = Subsample(inputs, outputs, stride, mean=shortcut == "A-mean")

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Three stages of (depth - 2) / 6 blocks, with 16, 32 and 64 channels.

    `shortcut` says how a stage begins: "A" takes every second pixel and pads with zeros, "A-mean"
    takes the mean of four pixels instead (as the `rethinking` code does), "B" is a 1x1 convolution
    with batch norm.

    >>> net = CifarResNet(20, classes=100, width=0.5)
    >>> net.linear
    Linear(in_features=32, out_features=100, bias=True)
    """

    def __init__(
        self,
        depth: int,
        *,
        classes: int = 10,
        width: float = 1.0,
        channels: int = 3,
        shortcut: Shortcut = "A",
    ) -> None:
        super().__init__()
        first = scaled(16, width)
        blocks = (depth - 2) // 6
        self.conv1 = conv(channels, first, 3)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.layer1 = _stage(first, first, blocks, 1, shortcut)
        self.layer2 = _stage(first, 2 * first, blocks, 2, shortcut)
        self.layer3 = _stage(2 * first, 4 * first, blocks, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(4 * first, classes)
        start_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of the classes."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.pool(x).flatten(1))


def _stage(
    inputs: int, outputs: int, blocks: int, stride: int, shortcut: Shortcut
) -> nn.Sequential:
    first = Block(inputs, outputs, stride, shortcut)
    rest = (Block(outputs, outputs, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
