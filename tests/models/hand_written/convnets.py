"""The image classifiers that every pruning paper reports on, at toy size."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, image

CLASSES = 11


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution with "same" padding, no bias, then batch norm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def classifier(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class PadShortcut(nn.Module):
    """Shortcut A: keep every second pixel and fill the new channels with zeros."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        before = self.extra // 2
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.extra - before))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride)
        self.second = conv_norm(outputs, outputs)
        if stride == 1 and inputs == outputs:
            self.shortcut = nn.Identity()
        elif shortcut == "pad":
            self.shortcut = PadShortcut(outputs - inputs)
        else:
            self.shortcut = conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


def cifar_resnet(shortcut: str) -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 16),
        nn.ReLU(),
        BasicBlock(16, 16, 1, shortcut),
        BasicBlock(16, 32, 2, shortcut),
        BasicBlock(32, 32, 1, shortcut),
        BasicBlock(32, 64, 2, shortcut),
        classifier(64),
    )


class PreActivationBlock(nn.Module):
    """Norm and activation come first, so the residual stream itself is never normed."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.project = None
        if stride != 1 or inputs != outputs:
            self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        skip = x if self.project is None else self.project(active)
        return skip + self.conv2(F.relu(self.norm2(self.conv1(active))))


def preactivation_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        PreActivationBlock(16, 24, 1),
        PreActivationBlock(24, 24, 1),
        PreActivationBlock(24, 48, 2),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        classifier(48),
    )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1; grouped 3x3 makes it ResNeXt, a squeeze gate makes it RegNetY."""

    def __init__(
        self, inputs: int, middle: int, outputs: int, stride: int, groups: int = 1, squeeze: int = 0
    ) -> None:
        super().__init__()
        self.reduce = conv_norm(inputs, middle, 1)
        self.spatial = conv_norm(middle, middle, 3, stride, groups)
        self.gate = SqueezeExcite(middle, squeeze) if squeeze else nn.Identity()
        self.expand = conv_norm(middle, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.spatial(F.relu(self.reduce(x))))
        return F.relu(self.expand(self.gate(y)) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(scale))


def bottleneck_net(groups: int = 1, squeeze: int = 0) -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 24),
        nn.ReLU(),
        Bottleneck(24, 16, 48, 1, groups, squeeze),
        Bottleneck(48, 16, 48, 1, groups, squeeze),
        Bottleneck(48, 32, 64, 2, groups, squeeze),
        classifier(64),
    )


class VGG(nn.Module):
    """The flatten makes each last channel 25 columns of the first linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths = [3, 16, 24, 32, 48]
        for depth, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [conv_norm(inputs, outputs), nn.ReLU(inplace=True)]
            layers += [nn.MaxPool2d(2)] if depth % 2 else []
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(48 * 5 * 5, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.features(x), 1))


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=0.1, k=2.0),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(24, 48, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(48, 32, 3, padding=1),
            nn.ReLU(),
        )
        self.pool = nn.AdaptiveAvgPool2d((3, 3))
        self.head = nn.Sequential(nn.Linear(32 * 9, 56), nn.ReLU(), nn.Linear(56, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.features(x))
        return self.head(x.view(x.size(0), -1))


class DenseBlock(nn.Module):
    def __init__(self, inputs: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(inputs + step * growth),
                nn.ReLU(),
                nn.Conv2d(inputs + step * growth, 2 * growth, 1, bias=False),
                nn.BatchNorm2d(2 * growth),
                nn.ReLU(),
                nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
            )
            for step in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1, bias=False),
        DenseBlock(24, 16, 3),
        nn.BatchNorm2d(72),
        nn.ReLU(),
        nn.Conv2d(72, 36, 1, bias=False),
        nn.AvgPool2d(2),
        DenseBlock(36, 16, 2),
        nn.BatchNorm2d(68),
        nn.ReLU(),
        classifier(68),
    )


class Inception(nn.Module):
    """Four branches side by side, joined along the channels."""

    def __init__(self, inputs: int, one: int, three: int, five: int, pooled: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, one, 1)
        self.three = nn.Sequential(
            nn.Conv2d(inputs, 16, 1), nn.ReLU(), nn.Conv2d(16, three, 3, padding=1)
        )
        self.five = nn.Sequential(
            nn.Conv2d(inputs, 12, 1), nn.ReLU(), nn.Conv2d(12, five, 5, padding=2)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = self.one(x), self.three(x), self.five(x), self.pool(x)
        return F.relu(torch.cat(branches, dim=1))


def inception() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 24, 3), Inception(24, 16, 24, 8, 12), classifier(60))


class GoogLeNet(nn.Module):
    """Inception blocks with a second classifier on the side, returned with the main one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16), nn.ReLU(), nn.LocalResponseNorm(3))
        self.first = Inception(16, 16, 24, 8, 8)
        self.second = Inception(56, 24, 24, 12, 12)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.side = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(224, CLASSES))
        self.head = nn.Sequential(nn.Dropout(0.4), classifier(72))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(self.stem(x))
        return self.head(self.second(self.pool(x))), self.side(x)


def _net(name: str, model: Callable[[], nn.Module], cut: Cut = "free", note: str = "") -> Case:
    return case(name, model, image, family="convnet", cut=cut, note=note)


CASES = [
    _net("resnet_pad", lambda: cifar_resnet("pad"), "partly", "shortcut A pads the channels"),
    _net("resnet_project", lambda: cifar_resnet("project"), note="shortcut B, a 1x1 convolution"),
    _net("resnet_preactivation", preactivation_resnet),
    _net("resnet_bottleneck", bottleneck_net),
    _net("resnext", lambda: bottleneck_net(groups=4), note="grouped 3x3 convolutions"),
    _net("regnet_y", lambda: bottleneck_net(groups=2, squeeze=6), note="groups and gates"),
    _net("vgg_flatten", VGG, note="flatten turns channels into blocks of columns"),
    _net("alexnet", AlexNet, "partly", "local response norm mixes neighbouring channels"),
    _net("densenet", densenet, note="concatenations of concatenations"),
    _net("inception", inception),
    _net("googlenet", GoogLeNet, "partly", "two outputs, response norm in the stem"),
]
