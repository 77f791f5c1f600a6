"""What does it cost to score ResNet-50, next to doing it by the book and to running the model?

    python bench/criteria.py                      # about three minutes of CPU, one thread
    python bench/criteria.py --only norms
    python bench/criteria.py --json bench/results/criteria.json

*norms*: the spectral and the nuclear norm of every convolution, written as a matrix (stride
ignored, as published), for pictures of 224 by 224. *matrix* writes the matrix of each filter down
and takes its singular values, in single precision; *loop* goes over the filters, forms the product
of each matrix with its transpose, and takes its eigenvalues. Of these two, one filter of each
shape is timed and multiplied by the number of filters; where the work would be more than
`--most` billion operations or the memory more than `--memory-gib`, it is not done, and said so.

*criteria*: each criterion that looks at weights only, on all groups, beside one forward pass of
the same model in the same process; in turns, medians over the rounds.

All times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.criteria.convmatrix import nuclear_norm, spectral_norm
from tonsor.criteria.geometry import Geometry, geometries
from tonsor.criteria.line import lines
from tonsor.criteria.score import score

CRITERIA = (
    "random", "l1", "l2", "lp", "bn_scale", "median", "geometric_median", "frobenius",
    "kernel_frobenius", "kernel_spectral", "kernel_nuclear",
)  # fmt: skip
CHEAP = ("random", "l1", "l2", "lp", "bn_scale")
Found = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """What the cost of a filter depends on."""

    kernel: int
    channels: int
    side: int

    @property
    def matrix_numbers(self) -> int:
        return self.side**4 * self.channels

    @property
    def matrix_work(self) -> float:
        return 4 * self.side**6 * self.channels

    @property
    def loop_work(self) -> float:
        return 4 / 3 * self.side**6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("norms", "criteria"))
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--most", type=float, default=50.0, help="10^9 operations for one filter")
    parser.add_argument("--memory-gib", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    console = Console(width=None if sys.stdout.isatty() else 130)
    shape = zoo.input_shape(args.model)
    model = zoo.build(args.model).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # whose scales are all 1 until it is trained
            nn.init.uniform_(module.weight)
    anatomy = tonsor.inspect(model, torch.randn(1, *shape))
    data: Found = {"machine": machine(), "model": args.model, "input": shape, "seed": 0}
    if args.only != "criteria":
        data["norms"] = norms(anatomy, args.most * 1e9, args.memory_gib * 2**30)
        console.print(norms_table(args.model, data["norms"]))
    if args.only != "norms":
        data["criteria"] = criteria(anatomy, shape, args.rounds, args.batches)
        console.print(criteria_table(args.model, data["criteria"]))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(data, indent=1) + "\n")


def machine() -> Found:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("tonsor", "torch", "numpy")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


# ---------------------------------------------------------------- norms of the matrix


def norms(anatomy: Anatomy, most: float, memory: float) -> list[Found]:
    """Score all convolutions in our way, and one filter of each shape in the others."""
    known = geometries(anatomy)
    ours: dict[Shape, Counter[str]] = {}
    sample: dict[Shape, tuple[torch.Tensor, Geometry]] = {}
    for conv in anatomy.convs:
        weight = anatomy.parameters[conv.weight].detach()
        where = known[conv.weight]
        shape = Shape(weight.shape[2], weight.shape[1], where.output_size[0])
        counted = ours.setdefault(shape, Counter())
        both = lines(where, "ignored")
        counted["filters"] += len(weight)
        for name, norm in (("spectral", spectral_norm), ("nuclear", nuclear_norm)):
            took = seconds(lambda norm=norm, w=weight, at=both: norm(w, at))
            counted[name] += took  # pyright: ignore[reportArgumentType]
        sample[shape] = weight[0], where
    loops: dict[tuple[int, int], float] = {}
    rows: list[Found] = []
    for shape, counted in ours.items():
        kernel, where = sample[shape]
        row: Found = {"kernel": shape.kernel, "channels": shape.channels, "side": shape.side}
        row |= {"filters": counted["filters"]}
        row |= {name: float(counted[name]) for name in ("spectral", "nuclear")}
        key = shape.kernel, shape.side
        if shape.loop_work <= most and key not in loops:
            loops[key] = seconds(lambda k=kernel, at=where: by_loop(k, at))
        row["loop"] = loops.get(key, f"{shape.loop_work / 1e9:,.0f}e9 operations")
        if 4 * shape.matrix_numbers > memory:
            row["matrix"] = f"{4 * shape.matrix_numbers / 2**30:,.1f} GiB"
        elif shape.matrix_work > most:
            row["matrix"] = f"{shape.matrix_work / 1e9:,.0f}e9 operations"
        else:
            row["matrix"] = seconds(lambda k=kernel, at=where: by_matrix(k, at))
        rows.append(row)
    return rows


def tap_matrices(where: Geometry) -> torch.Tensor:
    """The matrix of each tap alone, stride ignored: `[tap, position, position]`."""
    (rows, columns), (high, wide) = where.output_size, where.kernel
    found = torch.zeros(high, wide, rows, columns, rows, columns)
    for i in range(high):
        for j in range(wide):
            up, left = i - (high - 1) // 2, j - (wide - 1) // 2
            for p in range(max(0, -up), min(rows, rows - up)):
                q = torch.arange(max(0, -left), min(columns, columns - left))
                found[i, j, p, q, p + up, q + left] = 1
    return found.view(high * wide, rows * columns, rows * columns)


def by_matrix(kernel: torch.Tensor, where: Geometry) -> torch.Tensor:
    """Write the matrix of one filter down, and take all its singular values."""
    taps = tap_matrices(where)
    each = kernel.flatten(1) @ taps.flatten(1)  # [channel, position · position]
    return torch.linalg.svdvals(each.view(-1, *taps.shape[1:]).transpose(0, 1).flatten(1))


def by_loop(kernel: torch.Tensor, where: Geometry) -> torch.Tensor:
    """Form the product of the matrix of one filter with its transpose, and its eigenvalues."""
    from tonsor.criteria.toeplitz import gram

    rows, columns = (line.meetings() for line in lines(where, "ignored"))
    flat = kernel.flatten(1).double()
    return torch.linalg.eigvalsh(gram((flat.T @ flat)[None], rows, columns))


def norms_table(model: str, rows: list[Found]) -> Table:
    table = Table("kernel", title=f"{model}: norms of all filters as matrices, CPU seconds")
    for column in ("channels", "side", "filters", "spectral", "nuclear", "loop*", "matrix*"):
        table.add_column(column, justify="right")
    for row in rows:
        others = [
            took if isinstance(took, str) else f"{took * row['filters']:,.1f}"
            for took in (row["loop"], row["matrix"])
        ]
        table.add_row(
            f"{row['kernel']}x{row['kernel']}", str(row["channels"]), str(row["side"]),
            f"{row['filters']:,}", f"{row['spectral']:.3f}", f"{row['nuclear']:.3f}", *others,
        )  # fmt: skip
    table.add_section()
    sums = [f"{sum(row[name] for row in rows):.1f}" for name in ("spectral", "nuclear")]
    for name in ("loop", "matrix"):
        timed = [row for row in rows if not isinstance(row[name], str)]
        sums.append(f"> {sum(row[name] * row['filters'] for row in timed):,.0f}")
    table.add_row("all", "", "", f"{sum(row['filters'] for row in rows):,}", *sums)
    table.caption = (
        "* one filter timed, times the number of filters; what one filter needs where that is too "
        "much, and it is not in the sum"
    )
    return table


# ---------------------------------------------------------------- criteria and the forward pass


def criteria(
    anatomy: Anatomy, shape: tuple[int, ...], rounds: int, batches: list[int]
) -> dict[str, float]:
    """Take medians over rounds in which each has its turn; the first round is not counted."""
    images = {f"forward, batch {n}": torch.randn(n, *shape) for n in batches}
    found: dict[str, list[float]] = {name: [] for name in (*images, *CRITERIA)}
    for _ in range(rounds + 1):
        for name, times in found.items():
            if name in images:
                with torch.no_grad():
                    times.append(seconds(lambda x=images[name]: anatomy.model(x)))
            else:
                times.append(seconds(lambda by=name: score(anatomy, by)))
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def criteria_table(model: str, found: dict[str, float]) -> Table:
    table = Table("", title=f"{model}: all groups by criteria that look at weights only")
    passes = [name for name in found if name.startswith("forward")]
    table.add_column("CPU ms", justify="right")
    for name in passes:
        table.add_column(f"of a {name}", justify="right")
    table.add_column("a tenth of a pass")
    for name, took in found.items():
        shares = [f"{took / found[other]:.3f}" for other in passes]
        met = "yes" if took < 0.1 * found[passes[0]] else "no"
        table.add_row(name, f"{took * 1e3:.1f}", *shares, met if name in CHEAP else "")
    return table


if __name__ == "__main__":
    main()
