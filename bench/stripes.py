"""What do layers of stripes take beside the whole convolution, and which way of running is chosen?

    python bench/stripes.py [--rounds 15] [--batches 1 16] [--keeps 0.1 0.3 0.5]

For layers of CIFAR and ImageNet networks, at random stripes, in turns: the whole convolution of
torch, the same layer with the other stripes zero (`dense`), and stripe by stripe (`stripes`).
*Even* is the share of stripes at which the last takes as long as the whole convolution, by a line
through the ratios; *foretold* is that of a prototype on such a machine. Then ResNet-18 with the
numbers of stripes that SWP published, at 224 by 224. Times are CPU milliseconds of one thread,
medians; what is *chosen* goes by wall clock, as for any user.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tonsor
from tonsor.cost.heap import heap_kept
from tonsor.cost.spread import paired
from tonsor.methods.swp.table import resnet18_plan
from tonsor.select.fibres.execution import fastest
from tonsor.surgery.executing import time_layers
from tonsor.surgery.stripe_conv import StripeConv, striped

# Name, inputs, outputs, side, stride.
LAYERS = [
    ("resnet56 16-16@32", 16, 16, 32, 1), ("resnet56 64-64@8", 64, 64, 8, 1),
    ("vgg 64@32", 64, 64, 32, 1), ("vgg 256@8", 256, 256, 8, 1), ("vgg 512@2", 512, 512, 2, 1),
    ("resnet18 64@56", 64, 64, 56, 1), ("resnet18 256@14", 256, 256, 14, 1),
    ("resnet18 64-128@56/2", 64, 128, 56, 2),
]  # fmt: skip


SAMPLE_S = 0.004  # runs that are over sooner are repeated


def cpu_ms(models: Mapping[str, nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of one run of each, in turns, one for each round."""
    found: dict[str, list[float]] = {n: [] for n in models}
    with heap_kept():
        for turn in range(rounds + 2):
            for name in list(models)[turn % len(models) :] + list(models)[: turn % len(models)]:
                start, runs = time.process_time(), 0
                while time.process_time() - start < SAMPLE_S:
                    models[name](x)
                    runs += 1
                if turn >= 2:  # the first ones warm up
                    found[name].append(1e3 * (time.process_time() - start) / runs)
    return found


def foretold(inputs: int, batch: int) -> float:
    """The share of stripes up to which a prototype was faster; 0 where it never was."""
    if inputs < 64:
        return 0.0 if batch == 1 else 0.35
    return 0.72 if batch == 1 else 0.66


def mask_of(outputs: int, keep: float, seed: int) -> Any:
    size = outputs * 9
    mask = np.zeros(size, dtype=np.bool_)
    mask[np.random.default_rng(seed).permutation(size)[: round(keep * size)]] = True
    return mask.reshape(outputs, 9)


@torch.no_grad()
def layer_rows(batch: int, keeps: list[float], rounds: int) -> Iterator[dict[str, Any]]:
    for name, inputs, outputs, side, stride in LAYERS:
        torch.manual_seed(0)
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1).eval()
        x = torch.randn(batch, inputs, side, side)
        for keep in keeps:
            mask = mask_of(outputs, keep, 0)
            models: dict[str, nn.Module] = {"whole": conv}
            models |= {run: striped(conv, mask, run) for run in ("dense", "stripes")}
            off = (models["dense"](x) - models["stripes"](x)).abs().max().item()
            found = cpu_ms(models, x, rounds)
            (timing,) = time_layers(nn.Sequential(striped(conv, mask)), x, rounds=rounds)
            yield {
                "layer": name, "inputs": inputs, "batch": batch, "keep": keep,
                **{f"{n}_ms": median(found[n]) for n in models},
                "ratio": paired(found["stripes"], found["whole"]).median,
                "chosen": timing.run, "off": off,
            }  # fmt: skip


def even(rows: list[dict[str, Any]]) -> float | None:
    """The share at which a line through the ratios is at one, or none if it never is."""
    slope, start = np.polyfit([r["keep"] for r in rows], [r["ratio"] for r in rows], 1)
    return None if slope <= 0 else float(max(0.0, (1 - start) / slope))


def evens(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, batch in dict.fromkeys((r["layer"], r["batch"]) for r in rows):
        mine = [r for r in rows if (r["layer"], r["batch"]) == (name, batch)]
        if len(mine) > 1:
            yield {
                "layer": name, "batch": batch, "even": even(mine),
                "foretold": foretold(mine[0]["inputs"], batch),
            }  # fmt: skip


@torch.no_grad()
def whole_network(rounds: int) -> dict[str, Any]:
    """ResNet-18 with the published numbers of stripes, in all ways."""
    torch.manual_seed(0)
    net, x = tonsor.zoo.build("resnet18").eval(), torch.randn(1, 3, 224, 224)
    plan = resnet18_plan(tonsor.inspect(net, x))
    models: dict[str, nn.Module] = {"whole": net}
    models |= {name: plan.apply(net, verify=False) for name in ("stripes", "dense", "chosen")}
    for name in ("stripes", "dense"):
        for layer in models[name].modules():
            if isinstance(layer, StripeConv):
                layer.run = name
    plan, timings = fastest(models["chosen"], plan, x, rounds=rounds)
    found = cpu_ms(models, x, rounds)
    return {
        "model": "resnet18, table 2 of SWP", "batch": 1,
        "ms": {n: median(t) for n, t in found.items()},
        "ratio": {n: paired(t, found["whole"]).median for n, t in found.items()},
        "runs": {t.name: t.run for t in timings},
        "layers": plan.made_by["execution"]["layers"],
    }  # fmt: skip


def main() -> None:
    """Print the tables, and save them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--keeps", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/stripes.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print(f"{'layer':<22}{'batch':>6}{'keep':>6}{'whole':>10}{'dense':>10}{'stripes':>10}"
          f"{'ratio':>8}  chosen")  # fmt: skip
    for batch in given.batches:
        for row in layer_rows(batch, given.keeps, given.rounds):
            rows.append(row)
            print(
                f"{row['layer']:<22}{batch:>6}{row['keep']:>6.1f}{row['whole_ms']:>10.3f}"
                f"{row['dense_ms']:>10.3f}{row['stripes_ms']:>10.3f}{row['ratio']:>8.2f}"
                f"  {row['chosen']}", flush=True,
            )  # fmt: skip
    lines = list(evens(rows))
    print(f"\n{'layer':<22}{'batch':>6}{'even':>8}{'foretold':>10}")
    for row in lines:
        told = "never" if row["even"] is None else f"{row['even']:.2f}"
        print(f"{row['layer']:<22}{row['batch']:>6}{told:>8}{row['foretold']:>10.2f}")
    network = whole_network(given.rounds)
    print(f"\n{network['model']}, batch 1")
    for name, ms in network["ms"].items():
        print(f"{name:<10}{ms:>8.1f} ms{network['ratio'][name]:>8.2f}")
    saved = {
        "conditions": f"CPU time, eager, float32, 1 thread, torch {torch.__version__}, medians of "
        f"{given.rounds} rounds in turns",
        "layers": rows, "even": lines, "network": network,
    }  # fmt: skip
    given.out.write_text(json.dumps(saved, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
