"""The roofline is what was computed by hand, and its choices follow from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonsor.errors import EngineError
from tonsor.kernels.gpu.devices import KNOWN, device_of, known, measure_device
from tonsor.kernels.gpu.roofline import Layer, choose, expected
from tonsor.kernels.gpu.window import Window

H200 = KNOWN["H200"]
BATCH = 64
# Name, channels, side, and by hand: microseconds of products and of memory, and their ratio.
BY_HAND = [
    ("resnet56 16-16@32", 16, 32, 0.4, 1.0, None),
    ("vgg 64@32", 64, 32, 6.1, 3.9, 1.6),
    ("vgg 256@8", 256, 8, 6.1, 1.25, 4.9),
    ("resnet18 64@56", 64, 56, 18.7, 12.0, 1.6),
    ("resnet18 128@28", 128, 28, 18.7, 6.0, 3.1),
    ("resnet18 256@14", 256, 14, 18.7, 3.3, 5.7),
    ("resnet18 512@7", 512, 7, 18.7, 2.6, 7.2),
]


def layer_of(channels: int, side: int) -> Layer:
    return Layer(channels, channels, (side, side))


@pytest.mark.parametrize(("name", "channels", "side", "compute", "memory", "most"), BY_HAND)
def test_it_is_what_was_computed_by_hand(
    name: str, channels: int, side: int, compute: float, memory: float, most: float | None
) -> None:
    found = expected(layer_of(channels, side), BATCH, "bfloat16", 0.3, H200)
    assert found.dense.compute * 1e6 == pytest.approx(compute, rel=0.02, abs=0.05), name
    assert found.dense.memory * 1e6 == pytest.approx(memory, rel=0.02, abs=0.05)
    if most is None:
        assert found.dense.by == "launch"
        assert found.at_most == 1
    else:
        assert found.dense.compute / found.dense.memory == pytest.approx(most, rel=0.02, abs=0.05)
        at_once = expected(
            layer_of(channels, side), BATCH, "bfloat16", 0.3, replace(H200, launch_us=0)
        )
        assert at_once.at_most >= most - 0.05  # for sparsity spares weights too


layers = st.builds(
    Layer,
    inputs=st.sampled_from([3, 16, 64, 256, 1024]),
    outputs=st.sampled_from([8, 64, 512]),
    sides=st.tuples(st.integers(7, 60), st.integers(7, 60)),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 7)]),
    window=st.builds(Window, stride=st.sampled_from([(1, 1), (2, 1)])),
)
rates: Any = st.sampled_from(["bfloat16", "float16", "tf32", "float32"])
devices = st.sampled_from(list(KNOWN.values()))
shares = st.floats(0, 1)


@given(layers, st.integers(1, 256), rates, devices, shares, shares)
def test_less_work_never_takes_longer_and_never_beats_the_bound(
    layer: Layer, batch: int, rate: Any, device: Any, one: float, two: float
) -> None:
    less, more = (expected(layer, batch, rate, e, device) for e in sorted((one, two)))
    assert less.ours.seconds <= more.ours.seconds
    # A kernel as good as any can be has what sparsity leaves of the dense time.
    best = expected(layer, batch, rate, min(one, two), device, reached=1.0)
    assert best.speedup <= best.at_most * (1 + 1e-9)
    assert less.speedup <= best.speedup


@given(layers, st.integers(1, 256), rates, devices, shares)
def test_the_kernel_is_taken_only_where_it_should_be_faster(
    layer: Layer, batch: int, rate: Any, device: Any, executed: float
) -> None:
    found = choose(layer, batch, rate, executed, device)
    assert (found.run == "kernel") == (found.expected.speedup > 1 / 0.9)
    assert "\n" not in found.reason
    assert f"x{found.expected.speedup:.1f} expected" in found.reason


@given(layers, st.integers(1, 256), rates, devices)
def test_small_blocks_read_more(layer: Layer, batch: int, rate: Any, device: Any) -> None:
    chip = [expected(layer, batch, rate, 0.5, device, block=b).ours.chip for b in (16, 32, 128)]
    assert chip == sorted(chip, reverse=True)
    assert chip[0] / chip[2] == pytest.approx((1 / 16 + 1 / 128) / (2 / 128))


REASONS = [
    (layer_of(16, 32), 0.3, 128, "dense", "launch-bound: at most x1.0"),
    (Layer(64, 64, (56, 56), (1, 1), Window()), 0.3, 128, "dense", "memory-bound: at most x1.0"),
    (layer_of(64, 56), 0.1, 128, "kernel", "memory-bound soon: at most x1.6 by any sparsity, x1.6"),
    (layer_of(256, 14), 0.3, 128, "kernel", "compute-bound: x1.8 expected, at most x6.3"),
    (layer_of(256, 14), 0.7, 128, "dense", "compute-bound: x0.8 expected"),
    (layer_of(256, 14), 0.3, 16, "kernel", "bound by caches, for blocks are small: x1.8"),
]


@pytest.mark.parametrize(("layer", "executed", "block", "run", "reason"), REASONS)
def test_a_choice_says_why(
    layer: Layer, executed: float, block: int, run: str, reason: str
) -> None:
    found = choose(layer, BATCH, "bfloat16", executed, H200, block=block)
    assert (found.run, found.reason[: len(reason)]) == (run, reason)


NAMES = {
    "NVIDIA H200": "H200", "NVIDIA H100 80GB HBM3": "H100", "NVIDIA A100-SXM4-80GB": "A100",
    "NVIDIA L4": "L4", "NVIDIA GeForce RTX 4090": "RTX 4090", "NVIDIA L40": None,
    "NVIDIA H100 PCIe": None, "NVIDIA H200 NVL": None, "NVIDIA GeForce RTX 4090 D": None,
    "NVIDIA GeForce RTX 4090 Laptop GPU": None, "NVIDIA A100-SXM4-40GB": None,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_gpus_are_known_by_name_and_others_are_not(name: str) -> None:
    found = known(name)
    assert (found.name if found else None) == NAMES[name]


@pytest.mark.parametrize("ask", [device_of, measure_device])
def test_without_a_gpu_nothing_is_measured(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(EngineError, match=r"no GPU that torch can use here.*from KNOWN"):
        ask()
