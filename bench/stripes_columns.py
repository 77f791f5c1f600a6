"""How fast are stripes and columns by compiled kernels, beside what their FLOPs promise?

    python bench/stripes_columns.py [--layers] [--models] [--rounds 15] [--batches 1 16 32]

`--layers` times layers of CIFAR and ImageNet networks with random stripes and columns, and with
stripes that are the same in groups of 16 filters. The dense
layer that they are compared with is the fastest of three: torch as it is, torch with channels last,
and oneDNN with its weights laid once and the ReLU fused. *Of the ideal* is how much of the speed-up
that the FLOPs promise is there: (dense time / time) x (FLOPs kept / all FLOPs).

`--models` times whole networks that `tonsor.deploy` made ready, beside the network in plain torch,
with channels last, and deployed whole: *control* is the latter with every layer by our own kernel,
which says what of the speed-up is not due to sparsity. The VGG16 and ResNet-56 of stripes have
drawn masks like those that SWP finds (more at the centre, filters alike in how many they keep, some
gone); the ResNet-18 has the numbers that SWP published; columns keep a quarter in each layer.

All candidates take turns in one process of one thread. Layers are timed by CPU time, networks by
wall clock; numbers are medians.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tonsor
from tonsor.cost.heap import heap_kept
from tonsor.families.columns.layers import find_columns
from tonsor.families.stripes.layers import find_stripes
from tonsor.fibres import FibreMask
from tonsor.kernels.again import Again
from tonsor.kernels.convolve import convolve
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.library import state
from tonsor.kernels.packed import Form, pack
from tonsor.methods.swp.table import resnet18_plan
from tonsor.select.fibres.frame import Frame

Run = Callable[[], Any]
Cut = tuple[tonsor.Plan, float]  # and the share of multiply-accumulates that stays

# Name, inputs, outputs, side, stride.
LAYERS = [
    ("resnet56 16@32", 16, 16, 32, 1), ("resnet56 32@16", 32, 32, 16, 1),
    ("resnet56 64@8", 64, 64, 8, 1), ("vgg 64@32", 64, 64, 32, 1),
    ("vgg 128@16", 128, 128, 16, 1), ("vgg 256@8", 256, 256, 8, 1),
    ("vgg 512@4", 512, 512, 4, 1), ("vgg 512@2", 512, 512, 2, 1),
    ("resnet18 64@56", 64, 64, 56, 1), ("resnet18 128@28", 128, 128, 28, 1),
    ("resnet18 256@14", 256, 256, 14, 1), ("resnet18 512@7", 512, 512, 7, 1),
    ("resnet18 64-128@56/2", 64, 128, 56, 2), ("resnet18 256-512@14/2", 256, 512, 14, 2),
]  # fmt: skip
SAMPLE_S = 0.003  # runs that are over sooner are repeated
LONG_S = 0.05  # so long a network runs before the next has its turn, as it would alone


def in_turns(
    runs: Mapping[str, Run], rounds: int, clock: Callable[[], float], sample_s: float = SAMPLE_S
) -> dict[str, list[float]]:
    """Milliseconds of one run of each, one in each round; who goes first changes."""
    repeats: dict[str, int] = {}
    for name, run in runs.items():
        run()
        start = clock()
        run()
        run()
        repeats[name] = max(1, min(500, int(sample_s / max(1e-6, (clock() - start) / 2))))
    found: dict[str, list[float]] = {n: [] for n in runs}
    names = list(runs)
    for turn in range(rounds + 1):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            for _ in range(repeats[name]):
                runs[name]()
            if turn:  # the first round warms up
                found[name].append(1e3 * (clock() - start) / repeats[name])
    return found


# ---------------------------------------------------------------- layers


def dense_runs(conv: nn.Conv2d, x: Tensor) -> dict[str, Run]:
    """The whole convolution and a ReLU, in three ways."""
    last: Any = copy.deepcopy(conv)
    last = last.to(memory_format=torch.channels_last)
    near = x.contiguous(memory_format=torch.channels_last)
    ops: Any = torch.ops.mkldnn
    geometry = (list(conv.padding), list(conv.stride), list(conv.dilation), 1)
    laid = ops._reorder_convolution_weight(conv.weight.detach(), *geometry, list(x.shape))
    return {
        "nchw": lambda: conv(x).relu_(),
        "nhwc": lambda: last(near).relu_(),
        "prepacked": lambda: ops._convolution_pointwise(
            near, laid, conv.bias, *geometry, "relu", [], ""
        ),
    }  # fmt: skip


def kernel_runs(conv: nn.Conv2d, x: Tensor, keep: float) -> dict[str, tuple[Run, float]]:
    """Stripes, columns, stripes of groups of 16 filters, and all, with the share that is kept.

    Stripes of groups, and of outputs of a few pixels, can go two ways.
    """
    rng = np.random.default_rng(0)
    shape = Geometry(
        conv.in_channels, conv.out_channels, (3, 3), (conv.stride[0], conv.stride[1]), (1, 1, 1, 1)
    )
    near = x.contiguous(memory_format=torch.channels_last)
    stripes = rng.random((conv.out_channels, 9)) < keep
    columns = rng.random((conv.in_channels, 9)) < keep
    alike = np.repeat(rng.random((conv.out_channels // 16, 9)) < keep, 16, axis=0)

    def run(form: Form, kind: Any = None, mask: FibreMask | None = None) -> Run:
        packed = pack(conv.weight, conv.bias, shape, form, kind, mask)
        convolve(packed, near, shape, relu=True)
        again = Again(packed, near, shape, relu=True)  # as in a deployed model
        return lambda: again(near, None)

    found = {
        "stripes": (run("stripes", "stripes", stripes), float(stripes.mean())),
        "columns": (run("panels", "columns", columns), float(columns.mean())),
        "grouped": (run("panels", "stripes", alike), float(alike.mean())),
        "as stripes": (run("stripes", "stripes", alike), float(alike.mean())),
        "own dense": (run("panels"), 1.0),
    }
    high, wide = shape.out_size((x.shape[2], x.shape[3]))
    if x.shape[0] * high * wide <= 16:
        found["dots"] = (run("dots", "stripes", stripes), float(stripes.mean()))
    return found


def layer_row(
    layer: tuple[str, int, int, int, int], batch: int, keep: float, rounds: int
) -> dict[str, Any]:
    name, inputs, outputs, side, stride = layer
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1).eval()
    x = torch.randn(batch, inputs, side, side)
    dense, ours = dense_runs(conv, x), kernel_runs(conv, x, keep)
    runs = {**dense, **{n: run for n, (run, _) in ours.items()}}
    ms = {n: median(t) for n, t in in_turns(runs, rounds, time.process_time).items()}
    best = min(ms[n] for n in dense)
    ideal = {n: best / ms[n] * kept for n, (_, kept) in ours.items()}
    for form, kind in (("dots", "stripes"), ("as stripes", "grouped")):
        if form in ms:  # deploying takes the faster one
            ideal[kind] = max(ideal[kind], ideal.pop(form))
            ms[kind] = min(ms[kind], ms.pop(form))
    return {
        "layer": name, "inputs": inputs, "batch": batch, "keep": keep, "best_dense_ms": best,
        "ms": ms, "of_ideal": ideal,
    }  # fmt: skip


@torch.no_grad()
def layer_rows(batches: list[int], keeps: list[float], rounds: int) -> Iterator[dict[str, Any]]:
    with heap_kept():
        for batch in batches:
            for keep in keeps:
                for layer in LAYERS:
                    yield layer_row(layer, batch, keep, rounds)


def summary(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Medians over layers: wide ones, and narrow ones."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        width = "64 channels and more" if row["inputs"] >= 64 else "16 and 32 channels"
        groups[row["batch"], row["keep"], width].append(row)
    for (batch, keep, width), mine in groups.items():
        yield {
            "batch": batch, "keep": keep, "width": width, "layers": len(mine),
            **{kind: [f(r["of_ideal"][kind] for r in mine) for f in (median, min, max)]
               for kind in ("stripes", "columns", "grouped", "own dense")},
        }  # fmt: skip


# ---------------------------------------------------------------- whole networks


def like_swp(positions: int, filters: int, level: float, rng: np.random.Generator) -> FibreMask:
    """Draw stripes like those that SWP leaves."""
    centre = np.full(positions, 0.85)
    centre[positions // 2] = 2.0
    of_filter = rng.lognormal(-0.3, 0.7, (filters, 1))
    return rng.random((filters, positions)) < np.clip(level * of_filter * centre, 0, 1)


def swp_plan(net: nn.Module, x: Tensor, wanted: float) -> Cut:
    """Draw masks such that this share of the multiply-accumulates stays."""
    anatomy = tonsor.inspect(net, x)
    layers = find_stripes(anatomy)
    frame = Frame(anatomy, layers)
    whole = frame.amount(frame.start, "macs")
    low, high, masks = 0.0, 3.0, dict[str, FibreMask]()
    for _ in range(14):
        level, rng = (low + high) / 2, np.random.default_rng(0)
        masks = {x.name: like_swp(x.positions, x.filters, level, rng) for x in layers.free}
        for mask in masks.values():
            mask[0, mask.shape[1] // 2] = True  # no layer is gone altogether
        more = frame.amount(masks, "macs") > wanted * whole
        low, high = (low, level) if more else (level, high)
    return frame.plan(masks, {"by": "drawn, like those of SWP"}), frame.amount(
        masks, "macs"
    ) / whole


def quarter_plan(net: nn.Module, x: Tensor) -> Cut:
    """Draw a quarter of the columns of each layer but the first."""
    anatomy = tonsor.inspect(net, x)
    layers, rng = find_columns(anatomy), np.random.default_rng(0)
    masks: dict[str, FibreMask] = {}
    for layer in list(layers.free)[1:]:
        size = layer.rows * layer.positions
        mask = np.zeros(size, np.bool_)
        mask[rng.permutation(size)[: round(size / 4)]] = True
        masks[layer.name] = mask.reshape(layer.rows, layer.positions)
    others = layers.without([x.name for x in layers.free if x.name not in masks], "it stays whole")
    frame = Frame(anatomy, others)
    share = frame.amount(masks, "macs") / frame.amount(frame.start, "macs")
    return frame.plan(masks, {"by": "drawn"}), share


def table_plan(net: nn.Module, x: Tensor) -> Cut:
    anatomy = tonsor.inspect(net, x)
    plan = resnet18_plan(anatomy)
    layers = find_stripes(anatomy)
    frame = Frame(anatomy, layers)
    masks = {
        x.name: plan.stripes[x.weight].mask if x.weight in plan.stripes else frame.start[x.name]
        for x in layers.free
    }
    return plan, frame.amount(masks, "macs") / frame.amount(frame.start, "macs")


# What it is called, the network, its side, how to cut it, and what the speed should be at each
# batch.
MODELS: list[tuple[str, str, int, Callable[[nn.Module, Tensor], Cut], dict[int, float]]] = [
    ("VGG16, stripes like SWP's", "vgg16", 32, partial(swp_plan, wanted=0.224), {1: 7, 32: 4}),
    ("ResNet-56, stripes like SWP's", "resnet56", 32, partial(swp_plan, wanted=0.278),
     {1: 4, 32: 2.5}),
    ("ResNet-18, stripes of SWP's table 2", "resnet18", 224, table_plan, {1: 2, 8: 2}),
    ("VGG16, a quarter of the columns", "vgg16", 32, quarter_plan, {1: 3.5, 32: 3.5}),
    ("ResNet-18, a quarter of the columns", "resnet18", 224, quarter_plan, {1: 3.5, 8: 3.5}),
]  # fmt: skip


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = tonsor.zoo.build(name).eval()
    for module in net.modules():  # or folding them would be too easy
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return net


@torch.no_grad()
def model_row(
    title: str, name: str, side: int, make: Any, batch: int, goal: float, rounds: int
) -> dict[str, Any]:
    net = built(name)
    one, x = torch.randn(1, 3, side, side), torch.randn(batch, 3, side, side)
    plan, share = make(net, one)
    slim = plan.apply(net, verify=False).eval()
    near = x.contiguous(memory_format=torch.channels_last)
    models: dict[str, nn.Module] = {"eager": net}
    last: Any = built(name)
    models["nhwc"] = last.to(memory_format=torch.channels_last)
    models["dense"], _ = tonsor.deploy(net, x, quiet=True)
    models["control"], _ = tonsor.deploy(net, x, quiet=True, ways=("kernel",))
    models["fast"], report = tonsor.deploy(slim, x, quiet=True)
    runs = {n: partial(m, near if n == "nhwc" else x) for n, m in models.items()}
    ms = {n: median(t) for n, t in in_turns(runs, rounds, time.perf_counter, LONG_S).items()}
    off = (models["fast"](x) - slim(x)).abs().max() / slim(x).abs().max()
    return {
        "model": title, "batch": batch, "share": share, "ms": ms, "goal": goal,
        "times_eager": ms["eager"] / ms["fast"], "times_dense": ms["dense"] / ms["fast"],
        "times_control": ms["control"] / ms["fast"], "off": off.item(),
        "ways": dict(Counter(row.chosen for row in report.rows)), "returned": report.returned,
    }  # fmt: skip


# ---------------------------------------------------------------- what is printed


def print_layers(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    print(f"{'layer':<23}{'batch':>6}{'keep':>5}{'dense':>9}{'stripes':>9}{'columns':>9}"
          f"{'grouped':>9}{'own':>9}   of the ideal: stripes columns grouped, own dense"
    )  # fmt: skip
    for row in rows:
        ms, ideal = row["ms"], row["of_ideal"]
        print(
            f"{row['layer']:<23}{row['batch']:>6}{row['keep']:>5.1f}{row['best_dense_ms']:>9.3f}"
            f"{ms['stripes']:>9.3f}{ms['columns']:>9.3f}{ms['grouped']:>9.3f}"
            f"{ms['own dense']:>9.3f}{ideal['stripes']:>24.0%}{ideal['columns']:>8.0%}"
            f"{ideal['grouped']:>8.0%}{ideal['own dense']:>10.0%}",
            flush=True,
        )
        yield row


def print_summary(rows: list[dict[str, Any]]) -> None:
    kinds = ("stripes", "columns", "grouped")
    print(f"\n{'of the ideal: median (least to most)':<44}" + "".join(f"{k:>22}" for k in kinds))
    for row in rows:
        told = [f"{row[k][0]:.0%} ({row[k][1]:.0%} to {row[k][2]:.0%})" for k in kinds]
        where = f"batch {row['batch']}, keep {row['keep']}, {row['width']}"
        print(f"{where:<44}" + "".join(f"{text:>22}" for text in told))


def print_head() -> None:
    print(f"\n{'network':<37}{'batch':>4}{'FLOPs':>6}{'eager':>9}{'nhwc':>9}{'dense':>9}"
          f"{'control':>9}{'fast':>9}{'x eager':>8}{'dense':>7}{'contr.':>7}{'goal':>6}"
    )  # fmt: skip


def print_model(row: dict[str, Any]) -> None:
    ms = row["ms"]
    print(
        f"{row['model']:<37}{row['batch']:>4}{row['share']:>7.1%}"
        + "".join(f"{ms[n]:>9.2f}" for n in ("eager", "nhwc", "dense", "control", "fast"))
        + f"{row['times_eager']:>8.2f}{row['times_dense']:>7.2f}{row['times_control']:>7.2f}"
        f"{row['goal']:>6}  {row['ways']}", flush=True,
    )  # fmt: skip


def main() -> None:
    """Print the tables, and save them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16, 32])
    parser.add_argument("--keeps", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.6])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="models whose title has this in it")
    parser.add_argument("--heap", action="store_true", help="keep freed memory, for all networks")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/stripes_columns.json"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    kernels = state()
    saved: dict[str, Any] = {
        "conditions": f"float32, {given.threads} thread(s), torch {torch.__version__}, kernels "
        f"{kernels.level}, {torch.backends.cpu.get_cpu_capability()}, medians of {given.rounds} "
        "rounds in turns"
    }  # fmt: skip
    print(saved["conditions"])
    both = given.layers == given.models
    if given.layers or both:
        rows = list(print_layers(layer_rows(given.batches, given.keeps, given.rounds)))
        saved["layers"], saved["summary"] = rows, list(summary(rows))
        print_summary(saved["summary"])
    if given.models or both:
        print_head()
        saved["models"] = []
        for title, name, side, make, goals in MODELS:
            for batch, goal in goals.items():
                if given.only.lower() not in title.lower():
                    continue
                with heap_kept() if given.heap else nullcontext():
                    row = model_row(title, name, side, make, batch, goal, given.rounds)
                saved["models"].append(row)
                print_model(row)
    given.out.write_text(json.dumps(saved, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main()
