"""How many images per second: batches augmented at once, next to one image after another.

The other side is what most training scripts do: a dataset that makes a PIL image of each row,
pads it by 4, crops it at a random place, flips it, turns it into floats and normalises it, and
a DataLoader that collects them, in this process or in two workers. The transforms are those of
torchvision, call by call, written out here since torchvision is not installed.

    python bench/data.py                        # CIFAR-10 if TONSOR_DATA is set, else noise
    python bench/data.py --rounds 9 --images 20000
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tonsor.train.data import Augment, Batches, Memory, Source, open_data

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PAD, SIDE = 4, 32


class OneByOne(Dataset[tuple[Tensor, int]]):
    """CIFAR with RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor and Normalize."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.mean = torch.tensor(MEAN)[:, None, None]
        self.std = torch.tensor(STD)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), border=PAD, fill=0)
        left, top = random.randint(0, 2 * PAD), random.randint(0, 2 * PAD)
        image = image.crop((left, top, left + SIDE, top + SIDE))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div_(255).sub_(self.mean).div_(self.std), self.labels[index]


def some_images(count: int) -> tuple[Source, str]:
    """The training images of CIFAR-10, or noise of their size: the speed is the same."""
    named = os.environ.get("TONSOR_DATA")
    if named and (Path(named) / "cifar10").is_dir():
        return open_data(f"cifar10:{Path(named) / 'cifar10'}").train, "CIFAR-10"
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return Memory(noise, torch.zeros(count).long(), ("noise",)), "noise"


def seconds(batches: Iterable[tuple[Tensor, Tensor]], count: int) -> float:
    """How long it takes to go through an epoch."""
    began = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    took = time.perf_counter() - began
    assert seen == count, f"{seen} images came, not {count}"
    return took


def contenders(source: Memory, size: int) -> dict[str, Callable[[int], Iterable]]:
    """What is compared: a name, and how to begin an epoch."""
    common = {"size": size, "mean": MEAN, "std": STD, "shuffle": True, "seed": 0}
    plain = Batches(source, augment=Augment(PAD), **common)
    last = Batches(source, augment=Augment(PAD), channels_last=True, **common)
    dataset = OneByOne(source.images, source.labels)

    def loader(workers: int) -> Callable[[int], Iterable]:
        made = DataLoader(
            dataset, size, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        return lambda epoch: made

    return {
        "one by one, no workers": loader(0),
        "one by one, 2 workers": loader(2),
        "at once": plain.epoch,
        "at once, channels last": last.epoch,
    }


def main() -> None:
    """Take turns, and print the median of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000, help="images in an epoch")
    parser.add_argument("--size", type=int, default=128, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each")
    parser.add_argument("--threads", type=int, default=1, help="threads that torch may use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(0)
    whole, what = some_images(args.images)
    rows = torch.arange(min(args.images, len(whole)))
    source = Memory(whole.take(rows), whole.labels[rows], whole.classes)
    sides = contenders(source, args.size)
    took: dict[str, list[float]] = {name: [] for name in sides}
    for epoch in sides.values():  # workers start, and torch loads what it loads lazily
        seconds(epoch(0), len(source))
    for turn in range(args.rounds):
        order = list(sides) if turn % 2 else list(sides)[::-1]
        for name in order:
            took[name].append(seconds(sides[name](turn + 1), len(source)))
    print(
        f"{len(source):,} images of {what}, batches of {args.size}, {args.rounds} rounds, "
        f"torch {torch.__version__} with {args.threads} threads, {os.cpu_count()} cores "
        f"({platform.machine()})\n"
    )
    rate = {name: len(source) / statistics.median(times) for name, times in took.items()}
    print(f"| {'':24} | images/s | lowest  | highest | to no workers | to 2 workers |")
    print(f"|{'-' * 26}|---------:|--------:|--------:|--------------:|-------------:|")
    for name, times in took.items():
        slow, fast = len(source) / max(times), len(source) / min(times)
        ratios = [rate[name] / rate[f"one by one, {w} workers"] for w in ("no", "2")]
        print(
            f"| {name:24} | {rate[name]:8,.0f} | {slow:7,.0f} | {fast:7,.0f} | "
            f"{ratios[0]:12.1f}x | {ratios[1]:11.1f}x |"
        )


if __name__ == "__main__":
    main()
