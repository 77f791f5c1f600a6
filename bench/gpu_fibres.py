"""What do columns and grouped stripes take on a GPU, beside cuDNN and beside the roofline?

    python bench/gpu_fibres.py [--batch 64] [--dtype bfloat16] [--keeps 0.1 0.3 0.5]

For layers of CIFAR and ImageNet networks, at random fibres. *cuDNN* is the better of its dense
convolution in channels_last and in the default layout, with bias and ReLU in either case; ours is
the better of both layouts too. Each is captured in a CUDA graph of many runs, so that nothing is
for launching; the numbers are microseconds, the least of five replays. What fits into the caches
stays there from one run to the next, for both, so both may beat what memory allows. *Foretold* is
what the roofline says of the speed-up, *at most* what any sparsity could bring by it. What is
computed is checked against cuDNN's masked convolution before it is timed. The rows go into
results/gpu_fibres.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tonsor.fibres import FibreMask
from tonsor.kernels.gpu.blocks import pack
from tonsor.kernels.gpu.devices import Device, Rate, known, measure_device, seconds
from tonsor.kernels.gpu.launch import available, convolve
from tonsor.kernels.gpu.lists import Form
from tonsor.kernels.gpu.roofline import Layer, choose
from tonsor.kernels.gpu.window import Window

# Name, channels, side.
LAYERS = [
    ("resnet56 16-16@32", 16, 32), ("vgg 64@32", 64, 32), ("vgg 256@8", 256, 8),
    ("resnet18 64@56", 64, 56), ("resnet18 128@28", 128, 28), ("resnet18 256@14", 256, 14),
    ("resnet18 512@7", 512, 7),
]  # fmt: skip
# Kind, and how many filters share their skeleton.
KINDS: list[tuple[Form, int]] = [("columns", 1), ("stripes", 16), ("stripes", 32)]
LAYOUTS = (torch.channels_last, torch.contiguous_format)
WINDOW = Window(padding=((1, 1), (1, 1)))
TIMES = 50
NEAR = {"bfloat16": 2e-2, "float16": 3e-3, "tf32": 3e-3, "float32": 1e-4}


@dataclass(frozen=True)
class Row:
    """One layer at one share of fibres, in microseconds."""

    layer: str
    kind: str
    keep: float
    executed: float
    cudnn_us: float
    ours_us: float
    speedup: float
    foretold: float
    at_most: float
    choice: str
    reason: str


def best_us(run: Any, x: Tensor) -> float:
    """The better of both layouts."""
    laid = [x.contiguous(memory_format=layout) for layout in LAYOUTS]
    return 1e6 * min(seconds(partial(run, one), TIMES) for one in laid)


def masks(kind: Form, group: int, channels: int, keep: float) -> tuple[FibreMask, Tensor]:
    """A random mask, and the same as it multiplies a weight."""
    rng = np.random.default_rng(0)
    # As many at each position of each group, so that just this share is kept.
    many = channels // group * 9
    mask = np.zeros(many, dtype=np.bool_)
    mask[rng.permutation(many)[: round(keep * many)]] = True
    mask = np.repeat(mask.reshape(-1, 9), group, axis=0)
    shape = (channels, 1, 3, 3) if kind == "stripes" else (1, channels, 3, 3)
    return mask, torch.from_numpy(mask).view(shape)


def rows(batch: int, rate: Rate, keeps: list[float], device: Device) -> Iterator[Row]:
    dtype = torch.float32 if rate in ("tf32", "float32") else getattr(torch, rate)
    tf32 = rate == "tf32"
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = True, tf32
    for name, channels, side in LAYERS:
        torch.manual_seed(0)
        made: dict[str, Any] = {"device": "cuda", "dtype": dtype}
        x = torch.randn(batch, channels, side, side, **made)
        weight = torch.randn(channels, channels, 3, 3, **made) / (3 * channels**0.5)
        bias = torch.randn(channels, **made)
        laid = {
            layout: weight.contiguous(memory_format=layout) for layout in LAYOUTS
        }  # as frozen models hold it

        def dense(x: Tensor, laid: dict[Any, Tensor] = laid, bias: Tensor = bias) -> Tensor:
            own = LAYOUTS[1] if x.is_contiguous() else LAYOUTS[0]
            return F.conv2d(x, laid[own], bias, padding=1).relu_()

        cudnn = best_us(dense, x)
        for kind, group in KINDS:
            for keep in keeps:
                mask, times = masks(kind, min(group, channels), channels, keep)
                packed = pack(weight, mask, kind, window=WINDOW)
                ours = partial(convolve, packed=packed, bias=bias, relu=True, tf32=tf32)
                wanted = F.conv2d(x, weight * times.to(x.device), bias, padding=1).relu_()
                for layout in LAYOUTS:  # which also finds the best tiles, before any graph
                    found = ours(x.contiguous(memory_format=layout))
                    torch.testing.assert_close(found, wanted, rtol=NEAR[rate], atol=NEAR[rate])
                took = best_us(ours, x)
                layer = Layer(channels, channels, (side, side))
                choice = choose(layer, batch, rate, packed.executed, device, block=packed.block)
                yield Row(
                    name, kind if group == 1 else f"{kind} of {group}", keep, packed.executed,
                    cudnn, took, cudnn / took, choice.expected.speedup, choice.expected.at_most,
                    choice.run, choice.reason,
                )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--dtype", default="bfloat16", choices=("bfloat16", "float16", "tf32", "float32")
    )
    parser.add_argument("--keeps", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    parser.add_argument("--measured", action="store_true", help="the roofline of this very GPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    if not available():
        sys.exit("gpu_fibres.py needs a GPU that torch can use, and Triton; run it where both are")
    name = torch.cuda.get_device_name()
    device = None if args.measured else known(name)
    device = device or measure_device()
    print(f"{name}, batch {args.batch}, {args.dtype}, torch {torch.__version__}, by {device.name}")
    print(f"{'layer':20}{'kind':15}{'keep':>5}{'done':>6}{'cuDNN':>9}{'ours':>9}"
          f"{'':>7}{'foretold':>10}{'at most':>9}  choice")  # fmt: skip
    found = []
    for row in rows(args.batch, args.dtype, args.keeps, device):
        found.append(asdict(row))
        print(
            f"{row.layer:20}{row.kind:15}{row.keep:5.1f}{row.executed:6.2f}{row.cudnn_us:9.1f}"
            f"{row.ours_us:9.1f}  x{row.speedup:4.2f}{f'x{row.foretold:.2f}':>10}"
            f"{f'x{row.at_most:.2f}':>9}  {row.choice} ({row.reason})",
            flush=True,
        )
    conditions = {
        "gpu": name, "batch": args.batch, "dtype": args.dtype, "torch": torch.__version__,
        "roofline": {**asdict(device), "flops": dict(device.flops)},
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"conditions": conditions, "rows": found}, indent=1)
    (args.out / "gpu_fibres.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
