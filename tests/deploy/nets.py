"""Networks of many kinds that are deployed, with weights and statistics that hide no mistake."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tonsor import zoo


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and scales that are not those of a new one."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2.0),
                (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5),
            ):  # fmt: skip
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high)
    return model.eval()


class PreActivation(nn.Module):
    """Norms and ReLUs come before their convolutions, and the ReLUs write in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(8) for _ in range(3))
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.relu, self.linear = nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.relu(self.bn1(x))
        y = self.conv2(self.relu(self.bn2(self.conv1(y))))
        y += x
        return self.linear(self.relu(self.bn3(y)).mean((2, 3)))


class Mobile(nn.Module):
    """Depthwise convolutions, ReLU6, hardswish, and a block of squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6())
        depth = nn.Conv2d(12, 12, 3, stride=2, padding=1, groups=12, bias=False)
        self.deep = nn.Sequential(depth, nn.BatchNorm2d(12), nn.Hardswish(), nn.Dropout())
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.narrow = nn.Sequential(nn.Conv2d(12, 6, 1, bias=False), nn.BatchNorm2d(6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.wide(x))
        scale = F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)), inplace=True)
        x = x * torch.sigmoid(self.excite(scale))
        return self.narrow(x).flatten(1)


class Concatenating(nn.Module):
    """Each layer reads all before it, and a norm stands where no convolution is before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.first(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            found.append(conv(F.relu(norm(torch.cat(found, 1)))))
        x = self.pool(torch.cat(found, 1))
        return x.view(x.shape[0], -1)


class Shared(nn.Module):
    """One convolution runs three times, with other norms behind it, and once alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.alias = self.conv

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv(x)).relu()
        return self.conv(self.norm2(self.alias(x)) + x)


class Padded(nn.Module):
    """All kinds of padding."""

    def __init__(self) -> None:
        super().__init__()
        self.circular = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.reflect = nn.Conv2d(4, 4, 5, padding=(2, 1), padding_mode="reflect")
        self.same = nn.Conv2d(4, 5, (2, 3), padding="same", dilation=2)
        self.valid = nn.Conv2d(5, 4, 3, padding="valid", stride=2)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.valid(self.same(self.reflect(self.circular(x).relu())))).relu()


class OtherRanks(nn.Module):
    """Convolutions along one and three dimensions, and one that goes the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
        self.space = nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.ReLU())
        self.back = nn.Sequential(nn.ConvTranspose2d(3, 4, 2, 2), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        line = self.line(x.flatten(2))
        space = self.space(line[:, :, :128].reshape(-1, 2, 4, 8, 8))
        return self.back(space.flatten(2, 3))


class ManyWays(nn.Module):
    """Several inputs, one by keyword, one that is no tensor; several outputs, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, other: Tensor, *, double: bool = False, scale: Any = None) -> Any:
        both = self.one(x).relu() + self.two(other)
        if double:
            both = both * 2
        if scale is not None:
            both = both * scale
        return {"all": both, "some": (both[:, :2], both.mean((2, 3)))}


class WrittenTo(nn.Module):
    """What convolutions read, or what is added to them, is written to meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 2
        y = self.conv(x)
        x.add_(1)  # before the sum is taken
        y = y + x
        x[:, 1:].mul_(3)  # after it, through a view
        y = F.relu(y)
        part, z = y[:, :1], self.again(y)
        y += z  # the residual is written to, and seen from elsewhere
        return torch.cat([F.relu(y), part, x], 1)


class OtherSums(nn.Module):
    """Sums that are not of two tensors of the same shape, or not of those alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shift = nn.Conv2d(3, 3, 3, padding=1), nn.Parameter(torch.randn(3, 1, 1))
        self.fixed = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.add(self.conv(x), x, alpha=3)
        y = self.conv(y) + self.shift
        y = F.relu(self.conv(y) + 1.5)
        y = self.conv(y)
        y = y + y
        return self.conv(self.fixed(self.conv(y)))


def images(batch: int) -> tuple[Any, ...]:
    """Images of CIFAR's size, halved."""
    return (torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch)),)


def small(name: str) -> nn.Module:
    """A network of the zoo, a quarter as wide."""
    return zoo.build(name, width=0.25)


def without_stripes() -> nn.Module:
    """A network that has lost half of its stripes."""
    return tonsor.prune_stripes(shaken(small("resnet20")), images(2), budget="macs=50%")[0]


def without_columns() -> nn.Module:
    """A network that has lost half of its columns."""
    return tonsor.prune_columns(shaken(small("resnet20")), images(2), budget="macs=50%")[0]


def without_channels() -> nn.Module:
    """A network that has lost half of its channels."""
    return tonsor.prune(shaken(small("resnet20")), images(2), budget="macs=50%")[0]


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": lambda: small("resnet20"),
    "stripes": without_stripes,
    "columns": without_columns,
    "channels": without_channels,
    "pre-activation": PreActivation,
    "mobile": Mobile,
    "concatenating": Concatenating,
    "shared": Shared,
    "padded": Padded,
    "other ranks": OtherRanks,
    "written to": WrittenTo,
    "other sums": OtherSums,
}
