"""One run in which columns go by chance: `python -m tests.methods.spp.run FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from tests.methods.spp.nets import made
from tests.train.small import digits
from tonsor.methods.spp import prune_by_chance_while_training
from tonsor.plan_json import plan_text
from tonsor.train import Recipe


def run(folder: Path) -> None:
    net, anatomy = made("residual")
    _, result, decided = prune_by_chance_while_training(
        net, anatomy, digits(), Recipe(epochs=4, batch=32, lr=0.05), ratio=0.5, most=0.2,
        interval=1, folder=folder, device="cpu", quiet=True, board=False,
    )  # fmt: skip
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    told = {"plan": plan_text(decided), "correct": result.final.correct}
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]))
