"""Scoring in several processes, each with its share; started by `torchrun`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import tonsor
from tests.criteria.nets import looked_at, pictures, settled, small
from tonsor.criteria.score import score
from tonsor.errors import ScoreError

CRITERIA = ("l1", "taylor_weight", "taylor_bn", "fisher", "obd", "apoz", "hrank", "taylor_gate",
            "taylor_map", "random")  # fmt: skip


class Heads(nn.Module):
    """Which of two heads runs is for the minibatch to say."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (
            nn.Sequential(nn.Linear(3, n), nn.ReLU(), nn.Linear(n, 2)) for n in (4, 5)
        )

    def forward(self, x: Tensor, heads: str) -> Tensor:
        return torch.stack([{"a": self.a, "b": self.b}[h](x) for h in heads]).sum(0)


def heads(share: list[str], by: str) -> dict[str, Any]:
    """Score a model of two heads by minibatches that lead to some of them."""
    torch.manual_seed(0)
    model, x = settled(Heads().double()), torch.randn(4, 3).double()
    anatomy = tonsor.inspect(model, (x, "ab"))
    batches = [((x * (1 + len(h)), h), None) for h in share]
    scores = score(anatomy, by, batches=batches, loss=lambda o, _: o.square().mean())
    return scores.to_json()


def failing(rank: int) -> str:
    """One process fails: what does each say?"""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return output.sum() * (float("nan") if rank else 1.0)

    try:
        score(looked_at(small()), "taylor_weight", batches=pictures(1), loss=loss)
    except ScoreError as error:
        return str(error)
    return "nothing"


def everything(rank: int, world: int) -> dict[str, Any]:
    """Score all that is to be compared, with the share of one process."""
    found: dict[str, Any] = {}
    anatomy, batches = looked_at(small()), pictures(5)
    for by in CRITERIA:
        found[by] = score(anatomy, by, batches=batches[rank::world]).to_json()
    found["few"] = score(anatomy, "taylor_gate", batches=batches[:1] if not rank else []).to_json()
    for by in ("mean_map", "taylor_gate", "taylor_weight", "fisher"):
        found[f"apart {by}"] = heads(["a", "b"][rank::world], by)
        found[f"one {by}"] = heads(["a", "a"][rank::world], by)
    lost = [["ab", "ab"], ["aab", "ab"]]
    found["lost"] = heads([h[0] for h in lost] if world == 1 else lost[1 - rank], "mean_map")
    try:
        score(anatomy, "apoz", batches=[])
    except ScoreError as error:
        found["empty"] = str(error)
    found["failing"] = failing(rank)
    return found


def main() -> None:
    """Score, and write what came of it beside what the others write."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    found = everything(rank, world)
    (Path(sys.argv[1]) / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()  # gloo aborts a process whose partner goes away while it still listens
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
