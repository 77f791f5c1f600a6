"""What do layers of columns take beside the whole convolution, and which way of running is chosen?

    python bench/columns.py [--rounds 9] [--batches 1 16] [--keeps 0.1 0.25 0.4 0.6]

For layers of VGG and ResNets, at random columns, in turns: the whole convolution of torch, the same
layer with the other columns zero (`dense`), and column by column (`columns`). *Even* is the share
of columns at which the last takes as long as the whole convolution, by a line through the ratios.
Then whole networks that keep a quarter of the columns of each layer, beside the whole network: with
all layers `dense`, all by `columns`, and each as was *chosen*. Times are CPU milliseconds of one
thread, medians; what is chosen goes by wall clock, as for any user.
"""

from __future__ import annotations

import argparse
import copy
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
from tonsor.fibres import Execution, FibreMask
from tonsor.select.fibres.execution import fastest
from tonsor.surgery.column_conv import ColumnConv, columned
from tonsor.surgery.executing import time_layers

# Name, inputs, outputs, side, kernel, stride.
LAYERS = [
    ("resnet56 16-16@32", 16, 16, 32, 3, 1), ("resnet56 64-64@8", 64, 64, 8, 3, 1),
    ("convnet 32-64@8 5x5", 32, 64, 8, 5, 1), ("vgg 64-64@32", 64, 64, 32, 3, 1),
    ("vgg 256-256@8", 256, 256, 8, 3, 1), ("vgg 512-512@4", 512, 512, 4, 3, 1),
    ("vgg 512-512@2", 512, 512, 2, 3, 1), ("resnet18 64-64@56", 64, 64, 56, 3, 1),
    ("resnet18 64-128@56/2", 64, 128, 56, 3, 2), ("resnet18 256-256@14", 256, 256, 14, 3, 1),
    ("resnet18 512-512@7", 512, 512, 7, 3, 1), ("resnet50 256-64@56 1x1", 256, 64, 56, 1, 1),
]  # fmt: skip
NETWORKS = [("convnet", 32), ("vgg16", 32), ("resnet18", 224)]
SAMPLE_S = 0.003  # runs that are over sooner are repeated
SHARE = 0.25


def cpu_ms(models: Mapping[str, nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of one run of each, in turns, one for each round."""
    found: dict[str, list[float]] = {n: [] for n in models}
    with heap_kept():
        for turn in range(rounds + 1):
            for name in list(models)[turn % len(models) :] + list(models)[: turn % len(models)]:
                models[name](x)  # what ran before has left the caches full of its own
                start, runs = time.process_time(), 0
                while time.process_time() - start < SAMPLE_S:
                    models[name](x)
                    runs += 1
                if turn:  # the first one warms up
                    found[name].append(1e3 * (time.process_time() - start) / runs)
    return found


def mask_of(inputs: int, positions: int, keep: float) -> FibreMask:
    size = inputs * positions
    mask = np.zeros(size, dtype=np.bool_)
    mask[np.random.default_rng(0).permutation(size)[: round(keep * size)]] = True
    return mask.reshape(inputs, positions)


@torch.no_grad()
def layer_rows(batch: int, keeps: list[float], rounds: int) -> Iterator[dict[str, Any]]:
    for name, inputs, outputs, side, kernel, stride in LAYERS:
        torch.manual_seed(0)
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2).eval()
        x = torch.randn(batch, inputs, side, side)
        for keep in keeps:
            mask = mask_of(inputs, kernel * kernel, keep)
            models: dict[str, nn.Module] = {"whole": conv}
            models |= {run: columned(conv, mask, run) for run in ("dense", "columns")}
            off = (models["dense"](x) - models["columns"](x)).abs().max().item()
            found = cpu_ms(models, x, rounds)
            (timing,) = time_layers(nn.Sequential(columned(conv, mask)), x, rounds=rounds)
            yield {
                "layer": name, "batch": batch, "keep": keep,
                **{f"{n}_ms": round(median(found[n]), 4) for n in models},
                "ratio": round(paired(found["columns"], found["whole"]).median, 3),
                "chosen": timing.run, "off": float(f"{off:.1e}"),
            }  # fmt: skip


def evens(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The share at which a line through the ratios is at one, or none if it never is."""
    for name, batch in dict.fromkeys((r["layer"], r["batch"]) for r in rows):
        mine = [r for r in rows if (r["layer"], r["batch"]) == (name, batch)]
        if len(mine) > 1:
            slope, start = np.polyfit([r["keep"] for r in mine], [r["ratio"] for r in mine], 1)
            even = None if slope <= 0 else round(float(max(0.0, (1 - start) / slope)), 2)
            yield {"layer": name, "batch": batch, "even": even}


def running(slim: nn.Module, run: Execution) -> nn.Module:
    """Return a copy in which every layer of columns runs in one way."""
    made = copy.deepcopy(slim)
    for layer in made.modules():
        if isinstance(layer, ColumnConv):
            layer.run = run
    return made


@torch.no_grad()
def network_rows(batch: int, rounds: int) -> Iterator[dict[str, Any]]:
    for name, side in NETWORKS:
        torch.manual_seed(0)
        net, x = tonsor.zoo.build(name).eval(), torch.randn(batch, 3, side, side)
        one = x[:1]
        slim, report = tonsor.prune_columns(
            net, one, budget=f"pieces={SHARE:.0%}", rank="per_layer", verify=False
        )
        _, timings = fastest(slim, report.plan, x, rounds=rounds)
        models = {"whole": net, "chosen": slim, "dense": running(slim, "dense"),
                  "columns": running(slim, "columns")}  # fmt: skip
        found = cpu_ms(models, x, rounds)
        yield {
            "network": name, "batch": batch,
            "macs_kept": round(report.macs[1] / report.macs[0], 3),
            **{f"{n}_ms": round(median(t), 3) for n, t in found.items()},
            **{f"{n}_ratio": round(paired(found[n], found["whole"]).median, 3) for n in found},
            "by_columns": sum(t.run == "columns" for t in timings),
            "layers": sum(isinstance(m, ColumnConv) for m in slim.modules()),
        }  # fmt: skip


def main() -> None:
    """Print the tables, and save them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--keeps", nargs="+", type=float, default=[0.1, 0.25, 0.4, 0.6])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/columns.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    print(f"{'layer':<24}{'batch':>6}{'keep':>6}{'whole':>10}{'dense':>10}{'columns':>10}"
          f"{'ratio':>8}  chosen")  # fmt: skip
    for batch in given.batches:
        for row in layer_rows(batch, given.keeps, given.rounds):
            rows.append(row)
            print(
                f"{row['layer']:<24}{batch:>6}{row['keep']:>6.2f}{row['whole_ms']:>10.3f}"
                f"{row['dense_ms']:>10.3f}{row['columns_ms']:>10.3f}{row['ratio']:>8.2f}"
                f"  {row['chosen']}", flush=True,
            )  # fmt: skip
    lines = list(evens(rows))
    print(f"\n{'layer':<24}{'batch':>6}{'even':>8}")
    for row in lines:
        told = "never" if row["even"] is None else f"{row['even']:.2f}"
        print(f"{row['layer']:<24}{row['batch']:>6}{told:>8}")
    print(f"\n{'network':<10}{'batch':>6}{'MACs':>6}{'whole ms':>10}{'dense':>8}{'columns':>9}"
          f"{'chosen':>8}  chosen to run by columns")  # fmt: skip
    networks: list[dict[str, Any]] = []
    for batch in given.batches:
        for row in network_rows(batch, given.rounds):
            networks.append(row)
            print(
                f"{row['network']:<10}{batch:>6}{row['macs_kept']:>6.2f}{row['whole_ms']:>10.2f}"
                f"{row['dense_ratio']:>8.2f}{row['columns_ratio']:>9.2f}{row['chosen_ratio']:>8.2f}"
                f"  {row['by_columns']} of {row['layers']}", flush=True,
            )  # fmt: skip
    told = {
        "conditions": f"CPU time, eager, float32, 1 thread, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}, medians of {given.rounds} rounds in turns",
        "layers": rows, "even": lines, "networks": networks,
    }  # fmt: skip
    given.out.write_text(_compact(told), "utf-8")


def _compact(told: Mapping[str, Any]) -> str:
    """Write one line for each row."""
    parts = [
        json.dumps(value) if isinstance(value, str)
        else "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
        for value in told.values()
    ]  # fmt: skip
    lines = ",\n".join(f" {json.dumps(n)}: {part}" for n, part in zip(told, parts, strict=True))
    return "{\n" + lines + "\n}\n"


if __name__ == "__main__":
    main()
