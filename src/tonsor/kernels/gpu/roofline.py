"""What sparsity can bring at most on a GPU, and whether the kernel is worth it.

A convolution takes at least as long as its multiplications, and at least as long as it takes to
read the input and the weights and to write the output. Sparsity lessens the first, and of the
second only the weights. GPUs multiply so fast that narrow layers are bound by memory already when
dense.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tonsor.kernels.gpu.devices import Device, Rate
from tonsor.kernels.gpu.window import Pair, Window

Bound = Literal["compute", "memory", "chip", "launch"]

REACHED = 0.55
"""Which share of the speed of cuDNN's products the kernel is assumed to reach: not measured yet."""

_PIXELS = 128  # of a tile
_ONE = Window(padding=((1, 1), (1, 1)))


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution and the sides of its input.

    >>> Layer(64, 64, (32, 32)).flops(batch=64) / 1e9
    4.83
    """

    inputs: int
    outputs: int
    sides: Pair
    kernel: Pair = (3, 3)
    window: Window = _ONE
    groups: int = 1

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return self.outputs * self.inputs // self.groups * self.kernel[0] * self.kernel[1]

    def flops(self, batch: int) -> int:
        """Operations of the dense convolution, two for each multiplication."""
        return 2 * batch * self.weights * self.pixels

    @property
    def pixels(self) -> int:
        """How many pixels come out."""
        rows, columns = self.window.sizes(self.kernel, self.sides)
        return rows * columns

    def values(self, batch: int) -> int:
        """How many numbers are read and written beside the weights."""
        taken = self.inputs * self.sides[0] * self.sides[1]
        return batch * (taken + self.outputs * self.pixels)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least seconds of one layer, by what could hold it up."""

    compute: float
    memory: float
    chip: float
    launch: float

    @property
    def seconds(self) -> float:
        """What it takes, if it does everything at the same time."""
        return max(self.compute, self.memory, self.chip, self.launch)

    @property
    def by(self) -> Bound:
        """What holds it up."""
        named: dict[Bound, float] = {
            "launch": self.launch, "memory": self.memory, "compute": self.compute,
            "chip": self.chip,
        }  # fmt: skip
        return max(named, key=lambda name: named[name])


@dataclass(frozen=True, slots=True)
class Expected:
    """Bounds of the dense layer and of the kernel, and what any sparsity could bring at most."""

    dense: Bounds
    ours: Bounds
    at_most: float

    @property
    def speedup(self) -> float:
        """How many times as fast as the dense layer the kernel should be."""
        return self.dense.seconds / self.ours.seconds


@dataclass(frozen=True, slots=True)
class Choice:
    """How to run a layer, and why."""

    run: Literal["kernel", "dense"]
    reason: str
    expected: Expected


def expected(
    layer: Layer,
    batch: int,
    rate: Rate,
    executed: float,
    device: Device,
    *,
    block: int = 128,
    reached: float = REACHED,
) -> Expected:
    """Foretell a layer of which a share is executed, in blocks of so many filters.

    Each block reads its input anew from the caches of the chip, so small blocks are bound by those.

    >>> from tonsor.kernels.gpu.devices import KNOWN
    >>> found = expected(Layer(64, 64, (32, 32)), 64, "bfloat16", 0.3, KNOWN["H200"])
    >>> found.dense.by, round(found.at_most, 1)
    ('compute', 1.6)
    """
    size = 2 if rate in ("bfloat16", "float16") else 4
    compute = layer.flops(batch) / device.flops[rate]
    values = layer.values(batch) * size / device.memory
    weights = layer.weights * size / device.memory
    launch = device.launch_us / 1e6
    dense = Bounds(compute, values + weights, 0.0, launch)
    # For each tap, a tile reads its pixels and a row of the block's filters.
    moved = layer.flops(batch) / 2 * (1 / block + 1 / _PIXELS) * size
    ours = Bounds(
        executed * compute / reached,
        values + executed * weights,
        executed * moved / device.chip,
        launch,
    )
    return Expected(dense, ours, dense.seconds / max(values, launch))


def choose(
    layer: Layer,
    batch: int,
    rate: Rate,
    executed: float,
    device: Device,
    *,
    block: int = 128,
    reached: float = REACHED,
    margin: float = 0.1,
) -> Choice:
    """Choose between the kernel and the dense convolution.

    The kernel is taken where it should need less than `1 - margin` of the time.

    >>> from tonsor.kernels.gpu.devices import KNOWN
    >>> choose(Layer(64, 64, (56, 56)), 64, "bfloat16", 0.5, KNOWN["H200"]).reason
    'memory-bound soon: at most x1.6 by any sparsity, x1.1 expected'
    """
    found = expected(layer, batch, rate, executed, device, block=block, reached=reached)
    good = found.ours.seconds < (1 - margin) * found.dense.seconds
    return Choice("kernel" if good else "dense", _reason(found), found)


def _reason(found: Expected) -> str:
    most, here = f"at most x{found.at_most:.1f} by any sparsity", f"x{found.speedup:.1f} expected"
    if found.dense.by in ("launch", "memory"):
        return f"{found.dense.by}-bound: {most}, {here}"
    bound = found.ours.by
    if bound in ("launch", "memory") or found.at_most < 2:
        return f"{bound if bound == 'launch' else 'memory'}-bound soon: {most}, {here}"
    if bound == "chip":
        return f"bound by caches, for blocks are small: {here}, {most}"
    return f"compute-bound: {here}, {most}"
