"""ResNet 18, 34 and 50 for large images, with the names and the arithmetic of torchvision's."""

from __future__ import annotations

from torch import Tensor, nn

from tonsor.zoo.layers import conv, scaled, start_convolutions

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1; the 3x3 one has the stride, as in torchvision."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.downsample = _projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class ImageNetResNet(nn.Module):
    """Four stages behind a stem that halves the picture twice.

    >>> ImageNetResNet(50, width=0.25).fc
    Linear(in_features=512, out_features=1000, bias=True)
    """

    def __init__(
        self, depth: int, *, classes: int = 1000, width: float = 1.0, channels: int = 3
    ) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        first = scaled(64, width)
        outputs = [first * block.expansion * 2**i for i in range(4)]
        number = _BLOCKS[depth]
        self.conv1 = conv(channels, first, 7, 2)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = _stage(block, first, first, number[0], 1)
        self.layer2 = _stage(block, outputs[0], 2 * first, number[1], 2)
        self.layer3 = _stage(block, outputs[1], 4 * first, number[2], 2)
        self.layer4 = _stage(block, outputs[2], 8 * first, number[3], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(outputs[3], classes)
        start_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of the classes."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _stage(
    block: type[BasicBlock | Bottleneck], inputs: int, width: int, number: int, stride: int
) -> nn.Sequential:
    first = block(inputs, width, stride)
    rest = (block(block.expansion * width, width, 1) for _ in range(number - 1))
    return nn.Sequential(first, *rest)
