"""What tonsor does, shown on a small residual network in a few seconds."""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor, nn

from tonsor.anatomy import inspect
from tonsor.api import Report
from tonsor.artifact import load, save
from tonsor.plan_json import replacing, save_plan
from tonsor.select.make import plan

BATCH = 16
ROUNDS = 15
SEED = 0
EXPLAINED = "stage2.0.second"


class Block(nn.Module):
    """Two convolutions beside a shortcut, which ties their output to the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block."""
        out = self.norm1(self.first(x)).relu()
        return (self.norm2(self.second(out)) + self.shortcut(x)).relu()


class SmallResNet(nn.Module):
    """A residual network for images of 32 by 32 pixels."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.stage1 = nn.Sequential(Block(width, width, 1), Block(width, width, 1))
        self.stage2 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.stage3 = nn.Sequential(Block(2 * width, 4 * width, 2), Block(4 * width, 4 * width, 1))
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the scores of the classes."""
        x = self.norm(self.stem(x)).relu()
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(x.mean((2, 3)))


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians of two models run in turns, in milliseconds, and how they were taken."""

    before_ms: float
    after_ms: float
    batch: int
    threads: int
    rounds: int

    def __str__(self) -> str:
        return (
            f"{self.before_ms:.1f} ms → {self.after_ms:.1f} ms, "
            f"{self.before_ms / self.after_ms:.2f} times as fast (eager, batch {self.batch}, "
            f"{self.threads} thread, medians of {self.rounds} runs in turns)"
        )


@torch.no_grad()
def measure(before: nn.Module, after: nn.Module, x: Tensor, rounds: int = ROUNDS) -> Latency:
    """Time two models in turns, so that a busy moment hits both alike.

    One thread is used: several would wait for each other wherever others use the cores too.
    """
    times: tuple[list[float], list[float]] = ([], [])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for i in range(-3, rounds):  # the first ones only warm up
            for which in (0, 1) if i % 2 else (1, 0):
                start = time.perf_counter()
                (before, after)[which](x)
                if i >= 0:
                    times[which].append(1e3 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return Latency(statistics.median(times[0]), statistics.median(times[1]), len(x), 1, rounds)


def run(folder: Path, out: Console) -> Report:
    """Prune the small network, show each step, and leave the results in a folder."""
    torch.manual_seed(SEED)
    model = SmallResNet().eval()
    x = torch.randn(BATCH, 3, 32, 32)

    _title(out, "1. Inspect: what goes together, and what may not be cut")
    anatomy = inspect(model, x[:2])
    out.print(str(anatomy))

    _title(out, f"2. Explain: anatomy.explain('{EXPLAINED}')")
    out.print(str(anatomy.explain(EXPLAINED)))

    _title(out, "3. Plan, cut and prove: keep 50% of the multiply-accumulates")
    decided = plan(anatomy, "macs=50%", round_to=8, seed=SEED)  # convolutions like eights
    slim = decided.apply(model, verify=False)
    report = Report(decided, anatomy, decided.prove(model, slim))
    out.print(str(report))

    _title(out, "4. Save, and load into a fresh model of the same class")
    save(folder / "slim.tonsor", slim, decided)
    loaded = load(folder / "slim.tonsor", SmallResNet().eval())
    with torch.no_grad():
        same = torch.equal(loaded(x), slim(x))
    size = (folder / "slim.tonsor").stat().st_size
    kept = f"{folder / 'slim.tonsor'}, {size / 1e6:.2f} MB: loaded back, "
    kept += (
        "it computes the same to the last bit"
        if same
        else "it computes something else, which is a bug of tonsor"
    )
    out.print(kept)

    _title(out, "5. Measure on this machine")
    latency = measure(model, slim, x)
    out.print(str(latency))

    save_plan(folder / "plan.json", decided)
    _write(folder / "anatomy.json", json.dumps(anatomy.to_json(), indent=1, ensure_ascii=False))
    _write(folder / "summary.txt", _summary(report, kept, latency))
    out.print()
    out.print(
        f"In {folder}: slim.tonsor, plan.json, anatomy.json, summary.txt. The weights are random "
        "here, so nothing is said of accuracy; after a real cut, train on for a while."
    )
    return report


def _title(out: Console, text: str) -> None:
    out.print()
    out.print(text, style="bold cyan")


def _summary(report: Report, kept: str, latency: Latency) -> str:
    where = f"torch {torch.__version__} on {platform.machine()}, seed {SEED}"
    return "\n".join([str(report), f"  {kept}", f"  {latency}", f"  {where}"])


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(f"{text}\n", "utf-8")
