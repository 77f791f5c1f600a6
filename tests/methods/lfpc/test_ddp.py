"""Searches of two processes; `python -m tests.methods.lfpc.test_ddp FOLDER` is one of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.methods.lfpc.pictures import made, pictures
from tests.train.small import digits
from tests.train.test_processes import TWO, to_the_end
from tonsor.methods.lfpc import LearnedCriteria, Search, prune_by_learned_criteria
from tonsor.plan_json import load_plan, plan_text
from tonsor.train import Recipe

SHARES = ([slice(0, 10), slice(10, 16)], [slice(0, 4), slice(4, 16)])
"""Of two minibatches of 16 images: those of each process, which are not equally many."""


def searched(rank: int, world: int, masks: Any) -> dict[str, Any]:
    """Search with the share of one process; the weights learn from the same images in each."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(160, 10),
    ).double()  # fmt: skip
    anatomy = tonsor.inspect(net, torch.zeros(2, 1, 8, 8).double())
    other = [
        (x[share[rank]], y[share[rank]]) if world > 1 else (x, y)
        for (x, y), share in zip(pictures(2, seed=9, double=True), SHARES, strict=True)
    ]
    method = LearnedCriteria(
        net, anatomy, budget="macs=50%", batches=other, steps=12, seed=4,
        search=Search(masks=masks, lr=0.1, decay=0.0),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step, (x, y) in enumerate(pictures(13, double=True)):
        F.cross_entropy(net(x), y).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
    theta, beta = method.sampler.theta, method.sampler.beta
    plan = plan_text(method.finish())
    return {"theta": theta.tolist(), "beta": beta.tolist(), "plan": plan}


def run(folder: Path) -> dict[str, Any]:
    net, anatomy = made("residual")
    _, result, plan = prune_by_learned_criteria(
        net, anatomy, digits(), Recipe(epochs=2, batch=20, lr=0.05), budget="macs=50%",
        search={"lr": 0.1}, folder=folder, device="cpu", quiet=True, board=False,
    )  # fmt: skip
    return {"plan": plan_text(plan), "correct": result.final.correct}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    told: dict[str, Any] = {m: searched(rank, world, m) for m in ("soft", "straight")}
    told["run"] = run(folder)
    (folder / f"told-{rank}.json").write_text(json.dumps(told))
    if dist.is_initialized():
        dist.barrier()  # gloo aborts a process whose partner goes away while it still listens
        dist.destroy_process_group()


def test_two_processes_learn_the_odds_of_one(tmp_path: Path) -> None:
    to_the_end([*TWO[:-1], "tests.methods.lfpc.test_ddp"], tmp_path)
    first, second = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1))
    for masks in ("soft", "straight"):
        alone = searched(0, 1, masks)
        assert first[masks] == second[masks]
        for name in ("theta", "beta"):
            together, whole = torch.tensor(first[masks][name]), torch.tensor(alone[name])
            assert float(whole.std()) > 0.1
            close(together, whole)
        assert json.loads(first[masks]["plan"])["keep"] == json.loads(alone["plan"])["keep"]
    assert first["run"] == second["run"]
    assert load_plan(tmp_path / "search" / "plan.json").made_by["met"]
    assert tonsor.load(tmp_path / "slim.tonsor", made("residual")[0])


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 1), (2, 2)])
def test_the_mean_is_that_of_all_samples(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `_share` is told of by the other process is put in its place here."""
    from tonsor.methods.lfpc import lfpc

    net, anatomy = made("chain")
    method = LearnedCriteria(net, anatomy, budget="macs=50%", batches=pictures(1), steps=2)
    mine, theirs = (torch.full_like(method.sampler.theta, v) for v in (1.0, 5.0))
    method.sampler.theta.grad = mine.clone()
    monkeypatch.setattr(lfpc, "together", lambda: True)
    monkeypatch.setattr(
        lfpc, "in_all", lambda t: t + (theirs * sizes[1] if t.dim() else float(sizes[1]))
    )
    method._share(sizes[0])
    wanted = (sizes[0] * 1.0 + sizes[1] * 5.0) / sum(sizes)
    torch.testing.assert_close(method.sampler.theta.grad, torch.full_like(mine, wanted))
    method.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
