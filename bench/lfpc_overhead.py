"""What does a step of a search for criteria cost, beside a step of plain training?

    python bench/lfpc_overhead.py
    python bench/lfpc_overhead.py --networks resnet20 --rounds 2 --out /tmp/lfpc.json

Copies of each network train side by side on the same noise, a step each in turns: the bare one,
and two with learned criteria (L1, L2, geometric median), whose masks are soft mixtures or single
choices (straight). A plain step is forward, backward, the optimizer's step (SGD with momentum) and
zero_grad, at 32x32 pixels on one thread. A step of a search is that, with what is drawn masked, and
a step of the odds: all pieces scored anew, a draw, forward and backward on as many other images
with gradients of the odds alone, Adam on the odds, and the draw for the next step. Seconds are of
the CPU, medians of all steps but the first; `ratio` is the median over the rounds of the seconds of
a step to those of the bare one in the same round, `least_ratio` that of the quickest steps. On a
machine with other work these wander by some percent, so what is added to the passes is measured by
itself too, as a share of the bare step: `score`, the scores and ranks of all pieces by the three
criteria; `draw`, a draw from the odds, its masks, and their products with weights; `decide`, once
at the end of a search, the choice and its plan.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import tonsor
from tonsor.methods.lfpc import LearnedCriteria, Search

OUT = Path(__file__).parent / "results/lfpc_overhead.json"
KINDS = ("bare", "soft", "straight")
LONG = 10**6


class Learner:
    """A network, perhaps with a search, and the seconds of its steps."""

    def __init__(self, network: str, kind: str, family: Any, batch: Any, steps: int = LONG) -> None:
        torch.manual_seed(0)
        self.net: nn.Module = tonsor.zoo.build(network).train()
        self.batch = batch
        self.method: Any = None
        if kind != "bare":
            anatomy = tonsor.inspect(self.net, torch.zeros(2, 3, 32, 32))
            self.method = LearnedCriteria(
                self.net,
                anatomy,
                budget="macs=50%",
                batches=[batch],
                steps=steps,
                family=family,
                search=Search(masks="soft" if kind == "soft" else "straight"),
            )
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4
        )
        self.seconds: list[float] = []

    def step(self, number: int) -> None:
        """Train for a step, and take down how long it took."""
        images, labels = self.batch
        begun = time.process_time()
        F.cross_entropy(self.net(images), labels).backward()
        if self.method is not None:
            self.method.before_step(number)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.method is not None:
            self.method.after_step(number)
        self.seconds.append(time.process_time() - begun)


def noise(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(images, 3, 32, 32), torch.randint(0, 10, (images,))


def steps(network: str, family: str, images: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Train all side by side."""
    batch = noise(images)
    learners = {kind: Learner(network, kind, family, batch) for kind in KINDS}
    for number in range(rounds + 1):
        for kind in (KINDS, KINDS[::-1])[number % 2]:
            learners[kind].step(number)
    bare = learners["bare"].seconds[1:]
    for kind, learner in learners.items():
        mine = learner.seconds[1:]
        yield {
            "network": network, "family": family, "batch": images, "kind": kind, "rounds": rounds,
            "cpu_ms": 1000 * statistics.median(mine),
            "ratio": statistics.median(m / b for m, b in zip(mine, bare, strict=True)),
            "least_ratio": min(mine) / min(bare),
        }  # fmt: skip


def alone(network: str, family: str, count: int) -> Iterator[dict[str, Any]]:
    """Do what a search adds to the two passes, without them."""
    method = Learner(network, "soft", family, noise(2)).method
    held = {id(h): h for some in method.pools.held.values() for h in some}.values()

    def draw() -> None:
        drawn = method.sampler.draw()
        method.pools.show_(method.sites.masks(drawn.criteria, drawn.rates))
        for one in held:
            _ = getattr(one.module, one.name)

    def rank() -> None:
        method.sites.rank(method.pools.scores())

    yield from (row(network, family, *what, count) for what in (("score", rank), ("draw", draw)))
    yield row(network, family, "decide", method.finish, 1)


def row(network: str, family: str, kind: str, act: Callable[[], Any], count: int) -> dict[str, Any]:
    """Time something done several times, of which the first does not count."""
    seconds = []
    for _ in range(count + (count > 1)):
        begun = time.process_time()
        act()
        seconds.append(time.process_time() - begun)
    seconds = seconds[count > 1 :]
    return {"network": network, "family": family, "kind": kind, "rounds": count,
            "cpu_ms": 1000 * statistics.median(seconds)}  # fmt: skip


def main() -> None:
    """Print the table, and save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet56"])
    parser.add_argument("--families", nargs="+", default=["channels", "stripes"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    print(f"{'network':<10}{'family':<10}{'masks':<10}{'bare, CPU ms':>13}{'search':>9}{'ratio':>8}"
          f"{'of least':>10}{'score':>8}{'draw':>8}{'decide':>9}")  # fmt: skip
    for network in given.networks:
        for family in given.families:
            lone = {r["kind"]: r for r in alone(network, family, 15)}
            bare, *searches = steps(network, family, given.batch, given.rounds)
            for one in lone.values():
                one["share"] = one["cpu_ms"] / bare["cpu_ms"]
            found += [bare, *searches, *lone.values()]
            for mine in searches:
                shares = "".join(f"{lone[k]['share']:>8.1%}" for k in ("score", "draw"))
                print(f"{network:<10}{family:<10}{mine['kind']:<10}{bare['cpu_ms']:>13.0f}"
                      f"{mine['cpu_ms']:>9.0f}{mine['ratio']:>8.2f}{mine['least_ratio']:>10.2f}"
                      f"{shares}{lone['decide']['share']:>9.1%}", flush=True)  # fmt: skip
    about = {"torch": torch.__version__, "threads": 1, "rows": found}
    given.out.write_text(json.dumps(about, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
