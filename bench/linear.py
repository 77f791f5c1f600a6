"""Does the cost of the engine grow in step with the model, or faster?

Plain and residual networks of growing depth, with microseconds per operator for each stage.
Where the last column is near one, cost is linear; a quadratic stage shows as the ratio of the
depths. Numbers are CPU time of one thread, the least of the repeats.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from stages import STAGES, run
from torch import Tensor, nn

DEPTHS = (25, 50, 100, 200, 400)


class Residual(nn.Module):
    """A branch of two convolutions, added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


def mlp(depth: int) -> tuple[nn.Module, Tensor]:
    """Make so many linear layers, each of a different group."""
    layers = [nn.Sequential(nn.Linear(256, 256), nn.ReLU()) for _ in range(depth - 1)]
    return nn.Sequential(*layers, nn.Linear(256, 10)), torch.randn(2, 256)


def resnet(depth: int) -> tuple[nn.Module, Tensor]:
    """Make so many convolutions in blocks of two, all joined by one residual stream."""
    blocks = [Residual(64) for _ in range(depth // 2)]
    net = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip
    return net, torch.randn(1, 3, 8, 8)


FAMILIES = {"mlp": mlp, "resnet": resnet}


def main() -> None:
    """Measure every family at every depth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console()
    results: dict[str, Any] = {}
    for family in args.families:
        run(*_built(family, args.depths[0]))  # what torch imports at first use is not charged
        rows = {d: _least(family, d, args.repeats) for d in args.depths}
        results[family] = rows
        console.print(_table(family, rows))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def _built(family: str, depth: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model, inputs = FAMILIES[family](depth)
    return model.eval(), inputs


def _least(family: str, depth: int, repeats: int) -> dict[str, float]:
    runs = [run(*_built(family, depth)) for _ in range(repeats)]
    least = {s: min(r["seconds"][s] for r in runs) for s in STAGES}
    return {"operators": runs[0]["operators"], "trials": runs[0]["runs"], **least}


def _table(family: str, rows: dict[int, dict[str, float]]) -> Table:
    depths = sorted(rows)
    table = Table("stage", title=f"{family}: CPU microseconds per operator, by depth")
    for depth in depths:
        table.add_column(str(depth), justify="right")
    table.add_column(f"{depths[-1]} / {depths[0]}", justify="right")
    for stage in (*STAGES, "all"):
        costs = []
        for depth in depths:
            row = rows[depth]
            total = sum(row[s] for s in STAGES) if stage == "all" else row[stage]
            costs.append(total / row["operators"] * 1e6)
        ratio = f"{costs[-1] / costs[0]:.2f}" if costs[0] > 0 else ""
        table.add_row(stage, *(f"{c:,.0f}" for c in costs), ratio)
    for name in ("operators", "trials"):
        table.add_row(name, *(f"{rows[d][name]:,.0f}" for d in depths), "")
    return table


if __name__ == "__main__":
    main()
