"""Does accuracy come back? Published ResNets, half of their inner filters cut, trained on a little.

The first convolution of every block loses half of its filters by L1 norm, all in one shot. Then
the network is trained on for one and for two passes over 10,000 images of CIFAR-10. Every network
is judged once on the test images, with the last weights: nothing is chosen by looking at them.

    TONSOR_DATA=... python bench/cycle.py --json bench/results/cycle.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.train import Batches, Evaluation, Recipe, calibrate, evaluate, fit, open_data, split
from tonsor.train.data import Splits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what the weights were trained with
RECIPE = Recipe(
    name="cycle", batch=128, lr=0.01, weight_decay=5e-4, nesterov=True, schedule="cosine",
    choose="last",
)  # fmt: skip


def main() -> None:
    """Run the cycle for each network and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet56"])
    parser.add_argument("--passes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write everything here")
    args = parser.parse_args()
    found = os.environ.get("TONSOR_DATA")
    if not found:
        parser.error("set TONSOR_DATA to a folder with cifar10/ and weights/")
    results = [
        cycle(Path(found), name, args.passes, images=args.images, seed=args.seed)
        for name in args.models
    ]
    Console(width=150).print(table(results))
    if args.json:
        conditions = {
            "data": f"CIFAR-10, the first {args.images} of a seeded, stratified draw to train on, "
            "1,000 test images to judge by",
            "cut": "half of the filters of the first convolution of each block, L1, one shot",
            "recipe": asdict(RECIPE),
            "seed": args.seed,
            "torch": torch.__version__,
        }
        data = {"conditions": conditions, "results": results}
        args.json.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def cycle(
    data: Path, name: str, passes: Sequence[int], *, images: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Cut one network, and train it on for each number of passes, each time from the cut."""
    splits = split(open_data(f"cifar10:{data / 'cifar10'}"), validation=0, limit=images, seed=seed)
    splits = replace(splits, mean=MEAN, std=STD)
    model = zoo.load(name, data / "weights" / f"cifar10_{name}.safetensors")
    anatomy = tonsor.inspect(model, torch.randn(2, 3, 32, 32))
    blocks = [n for n, m in model.named_modules() if n.endswith("conv1") and "." in n]
    plan = tonsor.plan(anatomy, by="l1", ratios=dict.fromkeys(blocks, 0.5))
    slim = plan.apply(model)
    result = {
        "model": name,
        "macs": [anatomy.cost.macs(), anatomy.cost.macs(plan.counts)],
        "params": [anatomy.cost.params(), anatomy.cost.params(plan.counts)],
        "whole": _told(_judge(model, splits)),
        "cut": _told(_judge(slim, splits)),
    }
    settled = plan.apply(model, verify=False)
    calibrate(settled, _batches(splits, splits.train), 50)
    result["recalibrated"] = _told(_judge(settled, splits))
    for number in passes:
        tuned = plan.apply(model, verify=False)
        with tempfile.TemporaryDirectory() as folder:
            recipe = RECIPE.but(epochs=number, seed=seed)
            final = fit(tuned, splits, recipe, folder=folder, board=False).final
        result[f"passes {number}"] = _told(final)
    return result


def _batches(splits: Splits, source: Any) -> Batches:
    return Batches(source, size=250, mean=MEAN, std=STD, shuffle=False, seed=0)


def _judge(model: nn.Module, splits: Splits) -> Evaluation:
    return evaluate(model, _batches(splits, splits.test))


def _told(found: Evaluation) -> dict[str, Any]:
    return {
        "correct": found.correct, "total": found.total,
        "percent": round(100 * found.accuracy, 2), "error": round(100 * found.standard_error, 2),
    }  # fmt: skip


def table(results: Sequence[dict[str, Any]]) -> Table:
    """One line a network; accuracies in percent with their standard error."""
    judged = [k for k, v in results[0].items() if isinstance(v, dict)]
    shown = Table("model", "MACs", "parameters", *judged, title="accuracy on the test images, %")
    for found in results:
        kept = [f"{a:,} → {b:,}" for a, b in (found["macs"], found["params"])]
        cells = [f"{found[k]['percent']:.1f} ± {found[k]['error']:.1f}" for k in judged]
        shown.add_row(found["model"], *kept, *cells)
    return shown


if __name__ == "__main__":
    main()
