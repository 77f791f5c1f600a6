"""The networks of the papers, written out small, and what every test here starts with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.axes.solve import has_rule, solve
from tonsor.cost.account import Account, account
from tonsor.graph.trace import trace
from tonsor.types import Solution


def solved(model: nn.Module, *inputs: Any) -> Solution:
    return solve(trace(model, inputs, known=has_rule))


def accounted(model: nn.Module, *inputs: Any) -> Account:
    return account(solved(model, *inputs))


def image(size: int, batch: int = 1) -> Tensor:
    return torch.zeros(batch, 3, size, size)


class Subsample(nn.Module):
    """Shortcut A: every second pixel, and zeros for the new channels."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Functional(nn.Module):
    """A ReLU that is no `nn.ReLU`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Basic(nn.Module):
    """Two 3x3 convolutions; `modules` says whether ReLU is a module or a function."""

    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, shortcut: str, modules: bool
    ) -> None:
        super().__init__()
        self.first = conv_norm(inputs, inner, 3, stride)
        self.second = conv_norm(inner, outputs, 3)
        self.relu = nn.ReLU() if modules else Functional()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            project = shortcut == "B"
            self.shortcut = conv_norm(inputs, outputs, 1, stride) if project else Subsample()

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(self.relu(self.first(x)))
        return self.relu(out + self.shortcut(x))


def cifar_resnet(
    depth: int,
    shortcut: str = "A",
    classes: int = 10,
    inner: Sequence[int] = (),
    modules: bool = True,
) -> nn.Sequential:
    """ResNet-(6n+2); `inner` gives the width inside each block."""
    each = (depth - 2) // 6
    widths = [16] * each + [32] * each + [64] * each
    blocks: list[nn.Module] = []
    inputs = 16
    for width, inside in zip(widths, inner or widths, strict=True):
        stride = 1 if width == inputs else 2
        blocks.append(Basic(inputs, inside, width, stride, shortcut, modules))
        inputs = width
    stem = [conv_norm(3, 16, 3), nn.ReLU() if modules else Functional()]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64, classes))


VGG = {
    16: (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}


def vgg(depth: int, bias: bool, classes: int = 10, head: bool = False) -> nn.Sequential:
    """VGG with batch norm for 32x32; `head` puts 512-512 with a norm before the classes."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in VGG[depth]:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        inputs = width
    layers.append(nn.Flatten())
    if head:
        layers += [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, classes))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *[conv_norm(inputs, width, 1), nn.ReLU()],
            *[conv_norm(width, width, 3, stride), nn.ReLU()],
            conv_norm(width, 4 * width, 1),
        )
        same = stride == 1 and inputs == 4 * width
        self.shortcut = nn.Identity() if same else conv_norm(inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def imagenet_resnet(depth: int) -> nn.Sequential:
    """ResNet 18, 34 or 50 as torchvision has them."""
    each = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, number in enumerate(each):
        width = 64 * 2**stage
        for i in range(number):
            stride = 2 if stage and not i else 1
            if depth == 50:
                layers.append(Bottleneck(inputs, width, stride))
                inputs = 4 * width
            else:
                layers.append(Basic(inputs, width, width, stride, "B", True))
                inputs = width
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000)]
    return nn.Sequential(*layers, *ends)


def spp_convnet() -> nn.Sequential:
    """Caffe's cifar10_full; its normalisation is across channels here, which costs no MAC."""
    norm = nn.LocalResponseNorm(3, 5e-5, 0.75)
    return nn.Sequential(
        *[nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(), norm],
        *[nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True), norm],
        *[nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True)],
        *[nn.Flatten(), nn.Linear(64 * 4 * 4, 10)],
    )
