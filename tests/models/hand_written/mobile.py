"""Convolutional nets built for phones, and what grew out of them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, image
from .convnets import SqueezeExcite, classifier, conv_norm


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, project; optionally with a squeeze gate."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, ratio: int, squeeze: int, act: type[nn.Module]
    ) -> None:
        super().__init__()
        middle = inputs * ratio
        self.keep = stride == 1 and inputs == outputs
        self.expand = nn.Sequential(conv_norm(inputs, middle, 1), act())
        self.depthwise = nn.Sequential(conv_norm(middle, middle, 3, stride, middle), act())
        self.gate = SqueezeExcite(middle, squeeze) if squeeze else nn.Identity()
        self.project = conv_norm(middle, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + y if self.keep else y


def mobilenet(squeeze: int, act: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 16, 3, 2),
        act(),
        InvertedResidual(16, 24, 1, 3, squeeze, act),
        InvertedResidual(24, 24, 1, 3, squeeze, act),
        InvertedResidual(24, 32, 2, 2, squeeze, act),
        conv_norm(32, 64, 1),
        act(),
        classifier(64),
    )


class DepthMultiplier(nn.Module):
    """A grouped convolution that makes two channels out of each one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16)
        self.widen = nn.Conv2d(16, 32, 3, padding=1, groups=16)
        self.point = conv_norm(32, 48, 1)
        self.head = classifier(48)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.point(self.widen(F.relu(self.stem(x))))))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Half of the channels pass untouched, then the two halves are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv_norm(half, half, 1),
            nn.ReLU(),
            conv_norm(half, half, 3, 1, half),
            conv_norm(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((left, self.branch(right)), dim=1), 2)


class ShuffleDown(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.left = nn.Sequential(
            conv_norm(inputs, inputs, 3, 2, inputs), conv_norm(inputs, half, 1), nn.ReLU()
        )
        self.right = nn.Sequential(
            conv_norm(inputs, half, 1),
            nn.ReLU(),
            conv_norm(half, half, 3, 2, half),
            conv_norm(half, half, 1),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat((self.left(x), self.right(x)), dim=1), 2)


def shufflenet() -> nn.Module:
    return nn.Sequential(
        conv_norm(3, 16),
        nn.ReLU(),
        ShuffleDown(16, 48),
        ShuffleUnit(48),
        ShuffleUnit(48),
        conv_norm(48, 64, 1),
        nn.ReLU(),
        classifier(64),
    )


class GroupShuffleUnit(nn.Module):
    """The first ShuffleNet: grouped 1x1 convolutions with a shuffle between them."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv_norm(channels, channels // 2, 1, 1, groups)
        self.depthwise = conv_norm(channels // 2, channels // 2, 3, 1, channels // 2)
        self.expand = conv_norm(channels // 2, channels, 1, 1, groups)

    def forward(self, x: Tensor) -> Tensor:
        y = channel_shuffle(F.relu(self.reduce(x)), self.groups)
        return F.relu(x + self.expand(self.depthwise(y)))


def group_shufflenet() -> nn.Module:
    units = GroupShuffleUnit(48, 3), GroupShuffleUnit(48, 3)
    return nn.Sequential(conv_norm(3, 48, 3, 2), nn.ReLU(), *units, classifier(48))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat((F.relu(self.one(x)), F.relu(self.three(x))), 1)


def squeezenet() -> nn.Module:
    """The class scores are channels of a convolution, averaged over the image."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 2),
        nn.ReLU(),
        Fire(24, 12, 16),
        Fire(32, 12, 24),
        nn.Conv2d(48, 11, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class ConvNextBlock(nn.Module):
    """Norm and linear layers work on the last axis, so the channels move there and back."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(3 * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.layer_scale * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, stride=4)
        self.first = ConvNextBlock(32)
        self.norm = nn.LayerNorm(32)
        self.down = nn.Conv2d(32, 48, 2, stride=2)
        self.second = ConvNextBlock(48)
        self.head = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 11))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.second(self.down(x)).mean((-2, -1)))


class GhostNet(nn.Module):
    """Cheap depthwise copies of real channels, joined to them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 24)
        self.cheap = conv_norm(24, 24, 3, 1, 24)
        self.mix = conv_norm(48, 36, 1)
        self.head = classifier(36)

    def forward(self, x: Tensor) -> Tensor:
        real = F.relu(self.stem(x))
        ghost = F.relu(self.cheap(real))
        return self.head(F.relu(self.mix(torch.cat((real, ghost), 1))))


def _net(
    name: str, model: Callable[[], nn.Module], size: int = 20, cut: Cut = "free", note: str = ""
) -> Case:
    return case(name, model, lambda: image(size), family="convnet", cut=cut, note=note)


CASES = [
    _net("mobilenet_v2", lambda: mobilenet(0, nn.ReLU6)),
    _net("efficientnet", lambda: mobilenet(7, nn.SiLU), note="squeeze-excite gates"),
    _net("mobilenet_v3", lambda: mobilenet(5, nn.Hardswish)),
    _net("depth_multiplier", DepthMultiplier, note="groups = inputs, twice as many outputs"),
    _net("shufflenet_v2", shufflenet, cut="partly", note="chunk, concatenation, shuffle"),
    _net("shufflenet_v1", group_shufflenet, cut="partly", note="shuffle between groups"),
    _net("squeezenet", squeezenet),
    _net("convnext", ConvNext, 28, note="channels last inside, layer scale parameter"),
    _net("ghostnet", GhostNet),
]
