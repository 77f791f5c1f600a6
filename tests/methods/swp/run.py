"""One run that learns stripes: `python -m tests.methods.swp.run FOLDER METHOD`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from tests.methods.swp.nets import made
from tests.train.small import digits
from tonsor.methods.swp import prune_stripes_while_training
from tonsor.plan_json import plan_text
from tonsor.train import Recipe


def run(folder: Path, method: Any) -> None:
    net, anatomy = made("residual")
    _, result, decided = prune_stripes_while_training(
        net, anatomy, digits(), Recipe(epochs=2, batch=32, lr=0.05), method=method,
        budget="macs=50%", every=2, folder=folder, device="cpu", quiet=True, board=False,
    )  # fmt: skip
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    told = {"plan": plan_text(decided), "correct": result.final.correct}
    (folder / f"told-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), sys.argv[2])
