"""One run that prunes meanwhile: `python -m tests.methods.run FOLDER BY SCHEDULE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.methods.nets import residual
from tests.train.small import digits
from tonsor.methods.run import prune_while_training
from tonsor.train import Recipe


def run(folder: Path, by: str, schedule: str) -> None:
    net, anatomy = residual()
    _, result, decided = prune_while_training(
        net, anatomy, digits(), Recipe(epochs=2, batch=32, lr=0.05), schedule=schedule, by=by,
        budget="macs=50%", folder=folder, device="cpu", quiet=True, board=False,
    )  # fmt: skip
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    told = {
        "keep": decided.keep,
        "correct": result.final.correct,
        "rounds": decided.made_by["rounds"],
    }
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
