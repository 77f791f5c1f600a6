"""How fast GPUs multiply and read: by their data sheets, or measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from tonsor.errors import EngineError

Rate = Literal["bfloat16", "float16", "tf32", "float32"]
"""What is multiplied; `tf32` is float32 rounded to 10 bits, which torch's convolutions do."""

MULTIPLIED, READ = 0.8, 0.9
"""Which shares of what data sheets say are reached by large products, and by large copies."""

_BYTES = 128  # that a multiprocessor reads from its cache in a clock
_OTHERS = {"PCIe", "PCIE", "NVL", "40GB", "Laptop", "D", "MIG"}  # have the name, not the numbers


@dataclass(frozen=True, slots=True)
class Device:
    """What a GPU reaches: operations and bytes per second, and microseconds for the least kernel.

    `chip` are bytes per second from caches on the chip, over all multiprocessors.
    """

    name: str
    flops: Mapping[Rate, float]
    memory: float
    chip: float
    launch_us: float = 2.0


def _sheet(
    name: str, half: float, tf32: float, single: float, memory: float, units: int, clock: float
) -> Device:
    """Take tera-operations per second (not sparse ones), GB/s, multiprocessors, and GHz."""
    flops: dict[Rate, float] = {
        "bfloat16": half * MULTIPLIED * 1e12, "float16": half * MULTIPLIED * 1e12,
        "tf32": tf32 * MULTIPLIED * 1e12, "float32": single * MULTIPLIED * 1e12,
    }  # fmt: skip
    return Device(name, flops, memory * READ * 1e9, units * _BYTES * clock * 1e9)


KNOWN = {
    device.name: device
    for device in (
        _sheet("A100", 312, 156, 19.5, 2039, 108, 1.41),
        _sheet("H100", 989, 494.7, 66.9, 3350, 132, 1.83),
        _sheet("H200", 989, 494.7, 66.9, 4800, 132, 1.755),
        _sheet("L4", 121, 60.5, 30.3, 300, 58, 2.04),
        _sheet("RTX 4090", 165.2, 82.6, 82.6, 1008, 128, 2.52),
    )
}
"""GPUs by name, with 80 GB and SXM where there are several. None was measured."""


def known(name: str) -> Device | None:
    """Find what is known of a GPU by the name that torch gives it.

    >>> known("NVIDIA A100-SXM4-80GB").name, known("NVIDIA A100-SXM4-40GB")
    ('A100', None)
    """
    said = name.replace("RTX4090", "RTX 4090").replace("-", " ").split()
    if _OTHERS & set(said):
        return None
    for device in KNOWN.values():
        parts = device.name.split()
        if any(said[i : i + len(parts)] == parts for i in range(len(said))):
            return device
    return None


def device_of(index: int = 0) -> Device:
    """Return what is known of a GPU here, or measure it."""
    _needed()
    found = known(torch.cuda.get_device_name(index))
    return found or measure_device(index)


def measure_device(index: int = 0) -> Device:
    """Measure a GPU by large products, by a copy, and by the smallest kernel there is."""
    _needed()
    with torch.cuda.device(index), torch.no_grad():
        kinds: dict[Rate, torch.dtype] = {
            "bfloat16": torch.bfloat16, "float16": torch.float16, "tf32": torch.float32,
            "float32": torch.float32,
        }  # fmt: skip
        flops: dict[Rate, float] = {
            rate: _product(dtype, rate == "tf32") for rate, dtype in kinds.items()
        }
        source = torch.ones(1 << 26, device="cuda")
        target = torch.empty_like(source)
        copied = 2 * source.numel() * 4 / seconds(lambda: target.copy_(source), 10)
        small = torch.ones(1, device="cuda")
        launch = seconds(lambda: small.add_(1), 200) * 1e6
        about = torch.cuda.get_device_properties(index)
        # The clock is not known everywhere; 1.5 GHz is on the low side.
        chip = about.multi_processor_count * _BYTES * getattr(about, "clock_rate", 1.5e6) * 1e3
    return Device(torch.cuda.get_device_name(index), flops, copied, chip, launch)


def seconds(run: Callable[[], object], times: int) -> float:
    """Return the seconds of one run in a graph of many, which launches nothing; the least of 5."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    graph.replay()
    found = []
    for _ in range(5):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3 / times)
    return min(found)


def _product(dtype: torch.dtype, tf32: bool) -> float:
    many = 8192 if dtype != torch.float32 else 4096
    a = torch.ones(many, many, dtype=dtype, device="cuda")
    out = torch.empty_like(a)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        return 2 * many**3 / seconds(lambda: torch.mm(a, a, out=out), 5)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def _needed() -> None:
    if not torch.cuda.is_available():
        message = (
            "there is no GPU that torch can use here, so none can be measured; run this where "
            f"torch.cuda.is_available(), or take one of {', '.join(KNOWN)} from KNOWN"
        )
        raise EngineError(message)
