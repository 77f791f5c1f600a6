"""LayerPrune's table of VGG19 on CIFAR-100: the networks that methods leave, and their costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, TypeAlias

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores
from tonsor.errors import PlanError, SelectionError
from tonsor.families.blocks.find import find_blocks
from tonsor.plans import Plan
from tonsor.select.drop import drop_plan
from tonsor.select.make import plan
from tonsor.zoo.registry import build

Width: TypeAlias = int | Literal["M"]
CLASSES = 100


@dataclass(frozen=True, slots=True)
class Architecture:
    """A row of the table: the top-1 accuracy in percent, and the filters of each convolution.

    In `widths` an "M" is a max pooling, and 0 a convolution that is gone. `macs` and `params`, in
    millions, were worked out from the widths by hand; the paper prints neither.
    """

    name: str
    accuracy: float
    widths: tuple[Width, ...]
    macs: float
    params: float

    @property
    def filters(self) -> tuple[int, ...]:
        """How many filters each convolution has; 0 where it is gone."""
        return tuple(w for w in self.widths if w != "M")

    @property
    def layers_gone(self) -> tuple[int, ...]:
        """The numbers of the convolutions that are gone, from 1."""
        return tuple(n for n, filters in enumerate(self.filters, 1) if filters == 0)

    @property
    def filters_gone(self) -> int:
        """How many filters are gone, those of whole layers included."""
        return sum(ARCHITECTURES["VGG19"].filters) - sum(self.filters)


def _read(name: str, accuracy: float, text: str, macs: float, params: float) -> Architecture:
    """Read widths as they are printed."""
    widths: tuple[Width, ...] = tuple("M" if w == "M" else int(w) for w in text.split())
    return Architecture(name, accuracy, widths, macs, params)


_EARLY = "64 64 M 128 128 M 256 256 256 256 M"

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a
    for a in (
        _read("VGG19", 73.11, f"{_EARLY} 512 512 512 512 M 512 512 512 512 M", 398.18, 20.09),
        _read(
            "weight norm", 73.01,
            "47 64 M 127 128 M 256 256 256 256 M 512 508 494 472 M 502 512 499 509 M",
            379.54, 19.29,
        ),
        _read(
            "ECC", 72.71,
            "50 23 M 128 128 M 254 254 254 254 M 508 311 164 131 M 158 319 509 64 M",
            248.08, 7.87,
        ),
        _read(
            "slimming", 72.32,
            "42 64 M 125 128 M 255 256 255 256 M 433 291 82 46 M 45 44 62 367 M",
            252.02, 4.99,
        ),
        _read(
            "Taylor", 72.61,
            "61 64 M 127 128 M 256 256 256 256 M 512 505 383 205 M 109 118 422 482 M",
            331.66, 10.93,
        ),
        _read("LayerPrune-2", 73.60, f"{_EARLY} 512 512 512 512 M 0 0 512 512 M", 379.31, 15.37),
        _read(
            "LayerPrune-2, Taylor", 73.60, f"{_EARLY} 512 512 512 0 M 0 512 512 512 M",
            351.00, 15.37,
        ),
        _read("LayerPrune-5", 74.80, f"{_EARLY} 512 512 0 0 M 0 0 0 512 M", 294.37, 8.28),
    )
}  # fmt: skip


def published_network(name: str, *, classes: int = CLASSES) -> nn.Module:
    """Build a network of the table as it was printed, with random weights.

    It is the zoo's VGG19 with other widths; nothing stands in the place of a layer that is gone.

    >>> published_network("ECC").classifier
    Linear(in_features=64, out_features=100, bias=True)
    """
    network = build("vgg19", classes=classes)
    layers: list[nn.Module] = []
    inputs = 3
    for width in find_architecture(name).widths:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        elif width:
            conv = nn.Conv2d(inputs, width, 3, padding=1)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
    network.features = nn.Sequential(*layers)
    network.classifier = nn.Linear(inputs, classes)
    return network


def architecture_plan(anatomy: Anatomy, name: str, by: str | Scores = "l2") -> Plan:
    """Cut a VGG19 to a network of the table: as many filters of each layer, those that score best.

    Layers that are gone in the table go as blocks do, whatever their scores.
    """
    wanted = find_architecture(name)
    convs = anatomy.convs
    if [c.out_axis.size for c in convs] != list(ARCHITECTURES["VGG19"].filters):
        message = (
            f"'{name}' is a network that VGG19 becomes, whose 16 convolutions have 64 to 512 "
            "filters each; this model's convolutions are others"
        )
        raise PlanError(message)
    sizes = {c.name: (c.out_axis.size, n) for c, n in zip(convs, wanted.filters, strict=True)}
    ratios = {f"{c}.weight[0]": n / size for c, (size, n) in sizes.items() if 0 < n < size}
    gone = [c for c, (_, n) in sizes.items() if n == 0]
    made = plan(anatomy, by=by, ratios=ratios) if ratios else None
    if made is None or gone:
        made = drop_plan(anatomy, find_blocks(anatomy), gone, after=made)
    return replace(made, made_by={**made.made_by, "method": "layerprune", "architecture": name})


def find_architecture(name: str) -> Architecture:
    """Return the network of this name, or say which names are close."""
    found = ARCHITECTURES.get(name)
    if found is None:
        close = get_close_matches(str(name), ARCHITECTURES, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else ""
        message = f"the table has no network '{name}'; {hint or 'it has ' + _names()}"
        raise SelectionError(message)
    return found


def _names() -> str:
    return ", ".join(f"'{name}'" for name in ARCHITECTURES)
