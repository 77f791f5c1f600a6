"""One run, in this process or in one of its own: `python -m tests.train.run FOLDER`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from tests.train.small import digits, net
from tonsor.train import Recipe, fit


def run(folder: str | Path, *, plain: bool, resume: bool, epochs: int, save_every: int) -> None:
    """Train with almost all that a recipe can ask for, and write the losses beside the run."""
    # With several processes, what each has gathered for BatchNorm has to be made one.
    recalibrate = 0 if plain or "RANK" in os.environ else 2
    model = net(norm=not plain, dropout=0.0 if plain else 0.1)
    recipe = Recipe(
        epochs=epochs, batch=32, lr=0.05, nesterov=True, schedule="cosine", warmup=1, ema=0.9,
        label_smoothing=0.1, distill=0.5, recalibrate=recalibrate, accumulate=3,
        choose="last",
    )  # fmt: skip
    result = fit(
        model, digits(), recipe, folder=folder, resume=resume, device="cpu", quiet=True,
        teacher=net(norm=False, seed=7), save_every=save_every, log_every=3, board=False,
    )  # fmt: skip
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(result.losses, Path(folder) / "losses.pt")


def main() -> None:
    """Read the arguments, and train with one thread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--plain", action="store_true", help="no BatchNorm, no dropout")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--save-every", type=int, default=1000)
    torch.set_num_threads(1)
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
