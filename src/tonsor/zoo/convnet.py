"""The ConvNet of SPP (Wang et al., 2018), which is Caffe's `cifar10_full`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.zoo.layers import scaled

Init: TypeAlias = Literal["torch", "caffe"]


class LocalNorm(nn.Module):
    """Caffe's local response norm within a channel: x / (1 + alpha * mean of x² nearby)^beta.

    torch's LocalResponseNorm runs across channels instead. The mean is always over size², with
    zeros beyond the border.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Compute the norm."""
        near = F.avg_pool2d(x * x, self.size, 1, self.size // 2)
        return x / (1 + self.alpha * near) ** self.beta


class ConvNet(nn.Module):
    """Three 5x5 convolutions, each followed by a pool that halves the picture.

    `init="caffe"` draws the weights as Caffe's example does. That start is made for pixels of 0 to
    255 less the mean image; on normalised ones the first convolution, with weights of 0.0001, would
    learn next to nothing, so the default start is torch's. `size` is the side of the picture, on
    which the linear layer depends.

    >>> ConvNet().linear
    Linear(in_features=1024, out_features=10, bias=True)
    """

    def __init__(
        self,
        *,
        classes: int = 10,
        width: float = 1.0,
        channels: int = 3,
        size: int = 32,
        init: Init = "torch",
    ) -> None:
        super().__init__()
        narrow, wide = scaled(32, width), scaled(64, width)
        side = size // 8  # three times a pool of 3 with stride 2, rounding up, gives half
        self.conv1 = nn.Conv2d(channels, narrow, 5, padding=2)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = LocalNorm()
        self.conv2 = nn.Conv2d(narrow, narrow, 5, padding=2)
        self.pool2 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.norm2 = LocalNorm()
        self.conv3 = nn.Conv2d(narrow, wide, 5, padding=2)
        self.pool3 = nn.AvgPool2d(3, 2, ceil_mode=True)
        self.linear = nn.Linear(wide * side * side, classes)
        self.relu = nn.ReLU()
        if init == "caffe":
            self._start()

    def _start(self) -> None:
        for layer, deviation in (
            (self.conv1, 1e-4), (self.conv2, 0.01), (self.conv3, 0.01), (self.linear, 0.01)
        ):  # fmt: skip
            nn.init.normal_(layer.weight, std=deviation)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of the classes."""
        x = self.norm1(self.relu(self.pool1(self.conv1(x))))
        x = self.norm2(self.pool2(self.relu(self.conv2(x))))
        x = self.pool3(self.relu(self.conv3(x)))
        return self.linear(x.flatten(1))
