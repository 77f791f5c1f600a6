"""LayerPrune's table of VGG19 on CIFAR-100: what was published, counted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tonsor.anatomy import inspect
from tonsor.errors import SelectionError
from tonsor.methods.layerprune.architectures import (
    ARCHITECTURES,
    Architecture,
    find_architecture,
    published_network,
)

NOTES = (
    "the paper prints accuracies and widths; the other numbers follow from the widths, with a "
    "bias in each convolution: MACs of convolutions and the linear layer",
    "LayerPrune-2 stands in three places of the paper's table, beside Taylor with convolutions "
    "12 and 13 gone instead of 13 and 14; its accuracy is the same there, its MACs are not",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A published network with what we count of it, and measured of it (a fraction)."""

    published: Architecture
    macs: int
    params: int
    measured: float | None


@dataclass(frozen=True, slots=True)
class Table3:
    """The rows of the table, and what is to be said of it."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = NOTES

    def __str__(self) -> str:
        header = (
            "network", "published top-1", "layers gone", "filters gone", "MACs", "counted",
            "params", "counted", "measured top-1",
        )  # fmt: skip
        lines = [header, *(_cells(row) for row in self.rows)]
        sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(size) if i else cell.ljust(size)
                for i, (cell, size) in enumerate(zip(line, sizes, strict=True))
            )
            for line in lines
        ]
        return "\n".join([*text, *(f"note: {note}" for note in self.notes)])


def table3(measured: Mapping[str, float] | None = None) -> Table3:
    """Build and count every network of the table, and put accuracies measured here beside.

    `measured` maps names of `ARCHITECTURES` to fractions.
    """
    measured = measured or {}
    for name, accuracy in measured.items():
        find_architecture(name)
        if not 0 <= accuracy <= 1:
            message = f"the accuracy of '{name}' is a fraction from 0 to 1, got {accuracy}"
            raise SelectionError(message)
    return Table3(tuple(_counted(a, measured.get(a.name)) for a in ARCHITECTURES.values()))


def _counted(architecture: Architecture, measured: float | None) -> Row:
    network = published_network(architecture.name)
    cost = inspect(network, torch.zeros(1, 3, 32, 32)).cost
    return Row(architecture, int(cost.total("mac_conv")), cost.params(), measured)


def _cells(row: Row) -> tuple[str, ...]:
    printed = row.published
    gone = printed.layers_gone
    return (
        printed.name,
        f"{printed.accuracy:.2f}",
        ", ".join(map(str, gone)) or "-",
        f"{printed.filters_gone:,}",
        f"{printed.macs:.2f} M",
        f"{row.macs / 1e6:.2f} M",
        f"{printed.params:.2f} M",
        f"{row.params / 1e6:.2f} M",
        "-" if row.measured is None else f"{100 * row.measured:.2f}",
    )
