"""What does it add to a training step that pieces go by chance?

    python bench/spp_overhead.py
    python bench/spp_overhead.py --networks resnet20 --batches 64 --rounds 6 --out /tmp/spp.json

Two copies of each network train side by side on the same noise, a step each in turns: the bare
network, and one with SPP on its columns, whose chances to go are spread evenly from 0 to 0.9, so
that masks are drawn at each step and half of all columns are masked. A step is forward, backward,
before_step, the optimizer's step (SGD with momentum, which the method knows), zero_grad and
after_step, at 32x32 pixels on one thread. Seconds are of the CPU, medians of all steps but the
first; `ratio` is the median over the rounds of the seconds of a step to those of the bare one in
the same round, `least_ratio` that of the quickest steps. On a machine with other work these wander
by some percent, so what is added is measured by itself too: `added` is all that the method does in
a step, without the network: before_step, after_step, the products with masks and their gradients;
`added_share` is that of the bare step. `update` is the after_step in which chances change.
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
from tonsor.methods.spp import ByChance

OUT = Path(__file__).parent / "results/spp_overhead.json"
NEVER = 10**9


class Learner:
    """A network, perhaps with the method, and the seconds of its steps."""

    def __init__(self, network: str, kind: str, interval: int = NEVER) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = tonsor.zoo.build(network).train()
        self.method: Any = None
        if kind != "bare":
            anatomy = tonsor.inspect(self.net, torch.zeros(2, 3, 32, 32))
            self.method = ByChance(self.net, anatomy, ratio=0.75, interval=interval)
            for pool in self.method.chances.pools:
                pool.chance = torch.linspace(0, 0.9, pool.size, dtype=torch.float64)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        if self.method is not None:
            self.method.attach(self.optimizer)
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


def steps(network: str, batch: int, bf16: bool, rounds: int) -> Iterator[dict[str, Any]]:
    """Train both side by side."""
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    learners = {kind: Learner(network, kind) for kind in ("bare", "spp")}
    for number in range(rounds + 1):
        for kind in (list(learners), list(learners)[::-1])[number % 2]:
            learners[kind].step(number, images, labels, bf16)
    bare = learners["bare"].seconds[1:]
    for kind, learner in learners.items():
        mine = learner.seconds[1:]
        yield {
            "network": network, "batch": batch, "precision": "bf16" if bf16 else "fp32",
            "kind": kind, "rounds": rounds, "cpu_ms": 1000 * statistics.median(mine),
            "ratio": statistics.median(m / b for m, b in zip(mine, bare, strict=True)),
            "least_ratio": min(mine) / min(bare),
        }  # fmt: skip


def alone(network: str, kind: str, count: int) -> dict[str, Any]:
    """Do what the method adds to a step, or to one with an update, without the step."""
    learner = Learner(network, kind, 1 if kind == "update" else NEVER)
    held = [one for some in learner.method.pools.held.values() for one in some]
    grads = [torch.randn_like(one.weight) for one in held]
    for parameter in learner.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    seconds = []
    for number in range(count + 1):
        begun = time.process_time()
        if kind == "added":
            torch.autograd.backward([one.module.weight for one in held], grads)
            learner.method.before_step(number)
        learner.method.after_step(number)
        seconds.append(time.process_time() - begun)
    return {"network": network, "kind": kind, "rounds": count,
            "cpu_ms": 1000 * statistics.median(seconds[1:])}  # fmt: skip


def main() -> None:
    """Print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["convnet", "resnet20", "resnet56"])
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    print(f"{'network':<9}{'batch':>5} {'':<5}{'bare, CPU ms':>13}{'with SPP':>10}{'ratio':>8}"
          f"{'of least':>10}{'added':>8}")  # fmt: skip
    for network in given.networks:
        lone = {kind: alone(network, kind, 30) for kind in ("added", "update")}
        for batch in given.batches:
            for bf16 in (False, True):
                rounds = given.rounds * (3 if network == "convnet" else 1)
                bare, mine = steps(network, batch, bf16, rounds)
                mine["added_share"] = lone["added"]["cpu_ms"] / bare["cpu_ms"]
                found += [bare, mine]
                print(f"{network:<9}{batch:>5} {bare['precision']:<5}{bare['cpu_ms']:>13.1f}"
                      f"{mine['cpu_ms']:>10.1f}{mine['ratio']:>8.3f}{mine['least_ratio']:>10.3f}"
                      f"{mine['added_share']:>8.1%}", flush=True)  # fmt: skip
        for kind, row in lone.items():
            found.append(row)
            print(f"{network:<9}{kind}: {row['cpu_ms']:.1f} CPU ms", flush=True)
    about = {"torch": torch.__version__, "threads": 1, "rows": found}
    given.out.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
