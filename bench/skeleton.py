"""What does learning stripes add to a training step?

    python bench/skeleton.py
    python bench/skeleton.py --batches 64 --steps 20 --out /tmp/skeleton.json

Three copies of ResNet-56 train side by side on the same noise, a step each in turns: the bare
network, with a filter skeleton, and with a group lasso on stripes. A step is forward, backward,
before_step, the optimizer's step, zero_grad and after_step, at 32x32 pixels on one thread. Seconds
are of the CPU, medians of all steps but the first; `ratio` is the median over the rounds of the
seconds of a step to those of the bare one in the same round, `least_ratio` that of the quickest
steps. On a machine with other work these wander by some percent, so what is added is measured by
itself too: `added` is all that a method does in a step, without the network: its before_step and
after_step and, for the skeleton, the products, their gradients and the optimizer's part. `turn` is
the after_step in which the threshold of a budget is found anew, which is every 50 steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import tonsor
from tonsor.methods.swp import FilterSkeleton, StripeLasso

OUT = Path(__file__).parent / "results/skeleton.json"
KINDS: dict[str, Any] = {"bare": None, "skeleton": FilterSkeleton, "lasso": StripeLasso}


class Learner:
    """A network, its method, and the seconds of its steps."""

    def __init__(self, kind: str, network: str) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = tonsor.zoo.build(network).train()
        self.method: Any = None
        if KINDS[kind] is not None:
            anatomy = tonsor.inspect(self.net, torch.zeros(2, 3, 32, 32))
            self.method = KINDS[kind](self.net, anatomy, threshold=0.01)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        self.seconds: list[float] = []

    def step(self, number: int, images: torch.Tensor, labels: torch.Tensor, bf16: bool) -> None:
        """Train for a step, and take down how long it took."""
        begun = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(self.net(images), labels)
        loss.backward()
        if self.method is not None:
            self.method.before_step(number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.method is not None:
            self.method.after_step(number)
        self.seconds.append(time.process_time() - begun)


def steps(network: str, batch: int, bf16: bool, count: int) -> Iterator[dict[str, Any]]:
    """Train all kinds side by side."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    learners = {kind: Learner(kind, network) for kind in KINDS}
    for number in range(count + 1):
        for kind in (list(KINDS), list(KINDS)[::-1])[number % 2]:
            learners[kind].step(number, images, labels, bf16)
    bare = learners["bare"].seconds[1:]
    for kind, learner in learners.items():
        mine = learner.seconds[1:]
        yield {
            "network": network, "batch": batch, "precision": "bf16" if bf16 else "fp32",
            "kind": kind, "steps": count, "cpu_ms": 1000 * statistics.median(mine),
            "ratio": statistics.median(m / b for m, b in zip(mine, bare, strict=True)),
            "least_ratio": min(mine) / min(bare),
        }  # fmt: skip


def added(network: str, kind: str, count: int) -> dict[str, Any]:
    """Do what a method adds to a step, without the step."""
    learner = Learner(kind, network)
    mine = getattr(learner.method, "skeletons", [])
    convs: list[Any] = [
        learner.net.get_submodule(layer.name) for layer in learner.method.course.layers
    ]
    optimizer = torch.optim.SGD(mine, lr=0.0, momentum=0.9, weight_decay=1e-4) if mine else None
    for parameter in learner.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    grads = [torch.randn_like(conv.weight) for conv in convs]
    seconds = []
    for number in range(count + 1):
        begun = time.process_time()
        if mine:
            torch.autograd.backward([conv.weight for conv in convs], grads)
        learner.method.before_step(number)
        if optimizer is not None:
            optimizer.step()
        learner.method.after_step(number)
        seconds.append(time.process_time() - begun)
    return {"network": network, "kind": f"{kind}, added", "steps": count,
            "cpu_ms": 1000 * statistics.median(seconds[1:])}  # fmt: skip


def turns(network: str, count: int) -> dict[str, Any]:
    """Find the threshold of a budget anew, again and again, as numbers drift."""
    net = tonsor.zoo.build(network)
    anatomy = tonsor.inspect(net, torch.zeros(2, 3, 32, 32))
    method = FilterSkeleton(net, anatomy, budget="macs=40%", ramp=count, every=1)
    seconds = []
    for number in range(count):
        with torch.no_grad():
            for numbers in method.skeletons:
                numbers.mul_(torch.rand_like(numbers) + 0.5)
        begun = time.process_time()
        method.after_step(number)
        seconds.append(time.process_time() - begun)
    return {"network": network, "kind": "turn", "turns": count,
            "cpu_ms": 1000 * statistics.median(seconds)}  # fmt: skip


def main() -> None:
    """Print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="resnet56")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    alone = {kind: added(given.network, kind, 30) for kind in KINDS if kind != "bare"}
    print(f"{'batch':>5} {'':<5} {'':<9}{'CPU ms a step':>14}{'ratio':>8}{'of least':>10}"
          f"{'added':>8}")  # fmt: skip
    for batch in given.batches:
        for bf16 in (False, True):
            rows = list(steps(given.network, batch, bf16, given.steps))
            for row in rows:
                extra = alone[row["kind"]]["cpu_ms"] if row["kind"] in alone else 0.0
                row["added_share"] = extra / rows[0]["cpu_ms"]
                found.append(row)
                print(f"{batch:>5} {row['precision']:<5} {row['kind']:<9}{row['cpu_ms']:>14.1f}"
                      f"{row['ratio']:>8.3f}{row['least_ratio']:>10.3f}"
                      f"{row['added_share']:>8.1%}", flush=True)  # fmt: skip
    found += alone.values()
    found.append(turns(given.network, 30))
    for row in found[-3:]:
        print(f"{row['kind']}: {row['cpu_ms']:.1f} CPU ms")
    about = {"torch": torch.__version__, "threads": 1, "rows": found}
    given.out.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
