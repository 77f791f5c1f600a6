"""SPSRC's table of ResNet-110 on CIFAR-10: what was published, counted and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tonsor.anatomy import inspect
from tonsor.errors import SelectionError
from tonsor.methods.spsrc.configurations import CONFIGURATIONS, numbered, published_model

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Published:
    """A row as it was printed: accuracy in percent, FLOPs in the paper's unit, parameters in M."""

    method: str
    configuration: str
    accuracy: float
    flops: float
    params: float


PUBLISHED = (
    Published("dense", "", 93.72, 260.57, 1.73),
    Published("l1", "resnet110-1", 93.3, 160.128, 1.17),
    Published("spectral", "resnet110-1", 93.56, 160.128, 1.17),
    Published("nuclear", "resnet110-1", 93.29, 160.128, 1.17),
    Published("frobenius", "resnet110-1", 93.12, 160.128, 1.17),
    Published("GAL-0.5", "", 92.55, 134.19, 0.95),
    Published("spectral", "resnet110-2", 93.00, 113.76, 0.96),
    Published("nuclear", "resnet110-2", 93.03, 113.76, 0.96),
    Published("frobenius", "resnet110-2", 92.95, 113.76, 0.96),
)
NOTES = (
    "the paper says that SPSRC is more accurate than all other methods of similar size; in this "
    "table of its own, nuclear (93.29) and frobenius (93.12) are below l1 (93.3)",
    "the paper's FLOPs are half of what its counter gives in G, times 1024 instead of 1000, so "
    "260.57 stands for 252.89 M multiply-accumulates",
    "GAL-0.5 is another architecture, counted by its authors in another way",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A published row, with what we count of the same network, and measured of it (a fraction)."""

    published: Published
    flops: float | None
    params: int | None
    macs: int | None
    measured: float | None


@dataclass(frozen=True, slots=True)
class Table1:
    """The rows of the table, and what is to be said of it."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = NOTES

    def __str__(self) -> str:
        header = (
            "method", "configuration", "published top-1", "FLOPs", "params", "counted FLOPs",
            "params", "MACs", "measured top-1",
        )  # fmt: skip
        lines = [header, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*text, *(f"note: {note}" for note in self.notes)])


def table1(measured: Mapping[Key, float] | None = None) -> Table1:
    """Count the networks of the paper's table anew, and put accuracies measured here beside.

    `measured` maps (method, configuration) to a fraction, such as `("spectral", "resnet110-1"):
    0.9342`; the dense network is `("dense", "")`. What is counted depends on the configuration
    alone, so no weights are needed.
    """
    measured = measured or {}
    known = {(p.method, p.configuration) for p in PUBLISHED}
    for key, accuracy in measured.items():
        if key not in known:
            message = f"the table has no row {key!r}; it has {', '.join(map(repr, sorted(known)))}"
            raise SelectionError(message)
        if not 0 <= accuracy <= 1:
            message = f"the accuracy of {key!r} is a fraction from 0 to 1, got {accuracy}"
            raise SelectionError(message)
    anatomy = inspect(published_model("resnet110-1"), torch.zeros(1, 3, 32, 32))
    groups = {c.name: getattr(c.out_axis, "name", "") for c in numbered(anatomy)}
    rows: list[Row] = []
    for printed in PUBLISHED:
        seen = measured.get((printed.method, printed.configuration))
        if printed.method == "GAL-0.5":
            rows.append(Row(printed, None, None, None, seen))
            continue
        counts: dict[str, int] = {}
        if printed.configuration:
            kept = CONFIGURATIONS[printed.configuration].ratios(anatomy)
            counts = {groups[name]: count for name, count in kept.items()}
        cost = anatomy.cost
        flops = float(cost.total("spsrc_table", counts))
        rows.append(Row(printed, flops, cost.params(counts), cost.macs(counts), seen))
    return Table1(tuple(rows))


def _cells(row: Row) -> tuple[str, ...]:
    printed = row.published
    return (
        printed.method,
        printed.configuration or "-",
        f"{printed.accuracy:.2f}",
        f"{printed.flops:g}",
        f"{printed.params:.2f} M",
        "-" if row.flops is None else f"{row.flops:.3f}",
        "-" if row.params is None else f"{row.params / 1e6:.3f} M",
        "-" if row.macs is None else f"{row.macs / 1e6:.2f} M",
        "-" if row.measured is None else f"{100 * row.measured:.2f}",
    )
