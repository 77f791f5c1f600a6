"""What only a GPU can say: types and tiles that the interpreter does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.gpu.cases import Case
from tests.kernels.gpu.test_convolve import close, run
from tonsor.kernels.gpu.devices import measure_device
from tonsor.kernels.gpu.launch import available

pytestmark = pytest.mark.skipif(not available(), reason="there is no GPU with Triton here")
NEAR = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""About one rounding at the end; the sums are made in float32."""


@pytest.mark.parametrize("kind", ["stripes", "columns", "dense"])
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("inputs", [48, 64])
def test_it_is_the_masked_convolution(
    kind: Any, dtype: torch.dtype, last: bool, inputs: int
) -> None:
    case = Case(
        kind, batch=5, inputs=inputs, outputs=96, sides=(19, 17), shared=16, residual=True,
        relu=True, last=last,
    )  # fmt: skip
    close(run(case, torch.device("cuda"), dtype), case.wanted(dtype), NEAR[dtype])


@pytest.mark.parametrize("kind", ["stripes", "columns"])
def test_tf32_rounds_what_is_multiplied(kind: Any) -> None:
    case = Case(kind, inputs=64, outputs=64, sides=(16, 16))
    close(run(case, torch.device("cuda"), tf32=True), case.wanted(), 2e-3)


def test_what_is_measured_is_what_a_gpu_can_have() -> None:
    found = measure_device()
    assert all(1e11 < flops < 1e16 for flops in found.flops.values())
    assert 1e10 < found.memory < 1e14
    assert found.flops["bfloat16"] > found.flops["float32"] / 2
