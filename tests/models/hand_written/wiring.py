"""Fully connected nets whose wiring, not whose layers, is what is hard."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import Case, Cut, case, floats, image
from .language import GatedMLP


class Shape(NamedTuple):
    mean: Tensor
    scale: Tensor


@dataclass
class Report:
    score: Tensor
    rank: Tensor
    note: str = "two heads"


def norm_mlp() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((13, 64), (64, 48), (48, 32)):
        layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 7))


def mlp_autoencoder() -> nn.Module:
    widths = [13, 64, 32, 5, 32, 64, 13]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ELU()]
    return nn.Sequential(*layers[:-1])


def swiglu() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 48), GatedMLP(), nn.LayerNorm(48), nn.Linear(48, 7))


def glu_stack() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 96), nn.GLU(), nn.Linear(48, 64), nn.GLU(), nn.Linear(32, 7))


class Film(nn.Module):
    """A condition scales and shifts the channels of an image net."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 24, 3)
        self.norm = nn.BatchNorm2d(32, affine=False)
        self.condition = nn.Sequential(nn.Linear(9, 28), nn.ReLU(), nn.Linear(28, 64))
        self.head = nn.Linear(24, 11)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition)[..., None, None].chunk(2, dim=1)
        x = F.relu(self.norm(self.conv1(x)) * (1 + scale) + shift)
        return self.head(F.relu(self.conv2(x)).mean((2, 3)))


class Heads(nn.Module):
    """One trunk and two heads, handed back in the container asked for."""

    def __init__(self, container: type) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(13, 48), nn.ReLU(), nn.Linear(48, 40), nn.ReLU())
        self.first, self.second = nn.Linear(40, 7), nn.Linear(40, 3)
        self.container = container

    def forward(self, x: Tensor) -> object:
        x = self.trunk(x)
        first, second = self.first(x), F.softplus(self.second(x))
        if self.container is dict:
            return {"label": first, "extra": {"box": second, "size": [second.sum(-1)]}}
        return self.container(first, second)


class Highway(nn.Module):
    """A gate decides, unit by unit, between the new value and the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = nn.Linear(13, 48)
        self.plain = nn.ModuleList(nn.Linear(48, 48) for _ in range(2))
        self.gate = nn.ModuleList(nn.Linear(48, 48) for _ in range(2))
        self.head = nn.Linear(48, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for plain, gate in zip(self.plain, self.gate, strict=True):
            opened = torch.sigmoid(gate(x))
            x = opened * F.relu(plain(x)) + (1 - opened) * x
        return self.head(x)


class BilinearPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(13, 32), nn.Linear(9, 24)
        self.meet = nn.Bilinear(32, 24, 28)
        self.head = nn.Linear(28, 7)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = torch.tanh(self.left(left)), torch.tanh(self.right(right))
        return self.head(F.relu(self.meet(left, right)))


class FlattenJoin(nn.Module):
    """Two branches are joined along the channels first and flattened after."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 24, 3, 2), nn.Conv2d(3, 16, 5, 2, 1)
        self.head = nn.Sequential(nn.Linear(40 * 9, 28), nn.ReLU(), nn.Linear(28, 7))

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((F.relu(self.wide(x)), F.relu(self.narrow(x))), 1)
        return self.head(F.adaptive_max_pool2d(both, 3).flatten(1))


class StackFlatten(nn.Module):
    """Stacking interleaves two branches: their channels alternate after the flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(13, 32), nn.Linear(13, 32)
        self.middle, self.head = nn.Linear(64, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack((F.relu(self.left(x)), torch.tanh(self.right(x))), dim=-1)
        return self.head(F.relu(self.middle(both.flatten(1))))


class LastAxisFlatten(nn.Module):
    """Channels are the last axis when the flatten comes, so they are strided, not blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 24, 3, 2), nn.Conv2d(24, 16, 3, 2)
        self.middle, self.head = nn.Linear(16 * 16, 40), nn.Linear(40, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x)))).permute(0, 2, 3, 1)
        return self.head(F.relu(self.middle(x.reshape(x.shape[0], -1))))


class Gram(nn.Module):
    """Channel-by-channel products: every pair of channels becomes a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.reduce = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16 * 16, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.reduce(F.relu(self.conv(x)))).flatten(2)
        return self.head((h @ h.transpose(1, 2) / h.shape[-1]).flatten(1))


class BatchGram(nn.Module):
    """Similarity of every sample to every other: h @ h.T sums the channels away."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(13, 48), nn.ReLU(), nn.Linear(48, 32))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        return h @ h.T


class Diamond(nn.Module):
    """Branches split and meet again through sums, products, minima and differences."""

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Linear(13, 48)
        self.a, self.b, self.c = (nn.Linear(48, 32) for _ in range(3))
        self.head = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        top = F.relu(self.top(x))
        a, b, c = self.a(top), self.b(top), self.c(top)
        low, high = torch.minimum(a, b), torch.maximum(a, c)
        return self.head(torch.tanh(low * high) - torch.sigmoid(b - c) + a.abs().sqrt())


class CrossNet(nn.Module):
    """Each layer multiplies the raw input back in, so the width is the input's own."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(13, 13) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(13, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.head = nn.Linear(45, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for cross in self.cross:
            y = x * cross(y) + y
        return self.head(torch.cat((y, self.deep(x)), -1)).squeeze(-1)


class Coupling(nn.Module):
    """A flow: half of the input moves the other half, and every width but two is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(7, 48), nn.ReLU(), nn.Linear(48, 14)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        volume = x.new_zeros(x.shape[0])
        for net in self.nets:
            still, moved = x.chunk(2, -1)
            scale, shift = net(still).chunk(2, -1)
            x = torch.cat((moved * torch.tanh(scale).exp() + shift, still), -1)
            volume = volume + torch.tanh(scale).sum(-1)
        return x, volume


class GraphNet(nn.Module):
    """Messages along an adjacency matrix that comes with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(13, 48), nn.Linear(48, 32)
        self.self_loop = nn.Linear(13, 32)
        self.head = nn.Linear(32, 7)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        mean = adjacency / adjacency.sum(-1, keepdim=True).clamp(min=1)
        x = F.relu(mean @ self.first(nodes))
        return self.head(F.relu(mean @ self.second(x) + self.self_loop(nodes)).amax(1))


class RadianceField(nn.Module):
    """Sines of the coordinates go in twice: at the start and again half way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(18, 64), nn.Linear(64, 48)
        self.third, self.head = nn.Linear(66, 40), nn.Linear(40, 4)

    def forward(self, points: Tensor) -> Tensor:
        angles = (points[..., None] * 2.0 ** torch.arange(3)).flatten(-2)
        code = torch.cat((angles.sin(), angles.cos()), -1)
        x = F.relu(self.second(F.relu(self.first(code))))
        return torch.sigmoid(self.head(F.relu(self.third(torch.cat((code, x), -1)))))


def _row() -> Tensor:
    return floats(13)


def _net(
    name: str,
    model: Callable[[], nn.Module],
    inputs: Callable[[], Any] = _row,
    cut: Cut = "free",
    note: str = "",
) -> Case:
    return case(name, model, inputs, family="wiring", cut=cut, note=note)


def _graph() -> tuple[Tensor, Tensor]:
    return floats(5, 13), (torch.rand(2, 5, 5) < 0.5).float()


CASES = [
    _net("mlp_batch_norm", norm_mlp),
    _net("mlp_autoencoder", mlp_autoencoder),
    _net("mlp_swiglu", swiglu, note="gate and value by chunk"),
    _net("mlp_glu", glu_stack, note="nn.GLU"),
    _net("film", Film, lambda: (image(18), floats(9)), note="two inputs"),
    _net("heads_dict", lambda: Heads(dict), note="nested dict output"),
    _net("heads_dataclass", lambda: Heads(Report), note="dataclass output"),
    _net("heads_namedtuple", lambda: Heads(Shape), note="NamedTuple output"),
    _net("highway", Highway),
    _net("bilinear", BilinearPair, lambda: (floats(13), floats(9))),
    _net("flatten_after_concat", FlattenJoin, lambda: image(18)),
    _net("stack_flatten", StackFlatten),
    _net("flatten_channels_last", LastAxisFlatten, lambda: image(19)),
    _net("gram_channels", Gram, lambda: image(9), "partly", "every channel meets every other"),
    _net("gram_batch", BatchGram, note="h @ h.T"),
    _net("diamond", Diamond),
    _net("cross_net", CrossNet, note="concatenation with an input-wide branch"),
    _net("coupling_flow", Coupling, lambda: floats(14), "partly", "data widths are fixed"),
    _net("graph_net", GraphNet, _graph, note="two inputs"),
    _net("radiance_field", RadianceField, lambda: floats(3), note="raw features join hidden ones"),
]
