"""What does the training loop cost beside the bare PyTorch step?

Both train the same ResNet-20 with the same optimizer on the same images, in turns, on the CPU:

    python bench/loop.py
    python bench/loop.py --batch 128 --rounds 100 --threads 2

*bare* is forward, backward, step and zero_grad on one batch that lies ready, *loop* is all of
`fit`: shuffling, augmenting, the schedule, the losses, progress and a checkpoint while it goes.
Times are CPU seconds of the whole process, which other work on the machine disturbs little, and
wall time beside them; medians over all steps of all rounds. `loop` is measured inside of one run,
from the end of one step to the end of the next.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor import zoo
from tonsor.train import Method, Recipe, fit
from tonsor.train.data import Augment, Memory, Splits


def clocks() -> Tensor:
    """CPU seconds of this process, and wall seconds."""
    return torch.tensor([time.process_time(), time.perf_counter()], dtype=torch.float64)


class Turns(Method):
    """After each `block` steps of the loop as many bare ones; the clocks are read around each."""

    def __init__(self, bare: Iterator[Tensor], block: int) -> None:
        self.bare, self.block = bare, block
        self.seconds: dict[str, list[Tensor]] = {"bare": [], "loop": []}
        self.last: Tensor | None = None

    def after_step(self, step: int) -> None:
        now = clocks()
        if self.last is not None:
            self.seconds["loop"].append(now - self.last)
        self.last = now
        if (step + 1) % self.block == 0:
            self.seconds["bare"] += [next(self.bare) for _ in range(self.block)]
            self.last = clocks()


def bare_steps(
    model: nn.Module, recipe: Recipe, images: Tensor, labels: Tensor
) -> Iterator[Tensor]:
    """Yield the seconds of one step after the other."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    model.train()
    while True:
        begun = clocks()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield clocks() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="The loop beside the bare step.")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1, help="steps of one turn")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    count = args.batch * args.steps * args.rounds
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,))
    names = tuple("0123456789")
    few = Memory(images[:100], labels[:100], names)
    splits = Splits(
        name="noise", train=Memory(images, labels, names), validation=few, test=few,
        mean=(0.5,) * 3, std=(0.25,) * 3, augment=Augment(),
    )  # fmt: skip
    recipe = Recipe(epochs=1, batch=args.batch, lr=0.01)

    ready = torch.randn(args.batch, 3, 32, 32), torch.randint(0, 10, (args.batch,))
    bare = bare_steps(zoo.build(args.model), recipe, *ready)
    for _ in range(3):
        next(bare)
    turns = Turns(bare, args.steps)
    with tempfile.TemporaryDirectory() as folder:
        fit(zoo.build(args.model), splits, recipe, folder=folder, method=turns, device="cpu",
            save_every=20, quiet=True)  # fmt: skip

    print(f"{args.model}, batch {args.batch}, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{'':6}{'steps':>7}{'CPU ms/step':>13}{'images/s':>10}{'ratio':>8}{'wall ratio':>12}")
    medians = {name: torch.stack(s).median(0).values for name, s in turns.seconds.items()}
    for name, (cpu, wall) in medians.items():
        print(
            f"{name:6}{len(turns.seconds[name]):7}{1000 * cpu:13.1f}{args.batch / cpu:10.1f}"
            f"{cpu / medians['bare'][0]:8.3f}{wall / medians['bare'][1]:12.3f}"
        )


if __name__ == "__main__":
    main()
