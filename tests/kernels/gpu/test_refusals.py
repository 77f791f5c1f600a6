"""What the kernel does not run is refused in words, and importing it needs no Triton."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.kernels.gpu.cases import Case
from tonsor.errors import EngineError, SurgeryError
from tonsor.kernels.gpu import launch
from tonsor.kernels.gpu.launch import convolve

CASE = Case("stripes")
X, BIAS, _ = CASE.given_tensors()
PACKED = CASE.packed()
RIGHT: dict[str, Any] = {"x": X, "packed": PACKED, "bias": BIAS}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"x": X[0]}, r"takes \[image, 5, row, column\], but the input is \(5, 6, 5\)"),
    ({"x": X[:, :4]}, r"the input is \(2, 4, 6, 5\)"),
    ({"x": X.half()}, r"input is torch.float16 on 'cpu', but the weight is torch.float32"),
    ({"bias": torch.ones(7).half()}, "but the bias is torch.float16.*bring both to one kind"),
    ({"bias": torch.ones(5)}, r"has 7 filters, but the bias is \(5,\)"),
    ({"residual": torch.ones(2, 7, 6, 4)}, r"comes out is \(2, 7, 6, 5\).*the same shape"),
    (
        {"x": X.double(), "packed": CASE.packed(torch.float64), "bias": None},
        "not in torch.float64; convert",
    ),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        convolve(**(RIGHT | given))


def test_an_input_that_is_too_small_is_refused() -> None:
    packed = Case("stripes", kernel=(7, 7)).packed()
    with pytest.raises(SurgeryError, match="is larger than an input of 2x2 with padding"):
        convolve(X[:, :, :2, :2], packed)


def test_a_processor_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "interpreted", lambda: False)
    with pytest.raises(EngineError, match=r"runs on a GPU, but the input is on 'cpu'; .*INTERPRET"):
        convolve(**RIGHT)


def test_the_interpreter_does_not_multiply_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "interpreted", lambda: True)
    with pytest.raises(EngineError, match=r"can't multiply bfloat16; try float16 or float32"):
        convolve(X.bfloat16(), CASE.packed(torch.bfloat16))


BLOCKED = """
import sys
sys.modules["triton"] = None  # as where it can't be imported
import torch
from tonsor.errors import EngineError
from tonsor.kernels.gpu import kernel
from tonsor.kernels.gpu.blocks import pack
from tonsor.kernels.gpu.launch import available, convolve
try:
    convolve(torch.ones(1, 1, 1, 1), pack(torch.ones(1, 1, 1, 1)))
except EngineError as error:
    print(available(), error)
"""
LOOKED_AT = """
import sys
import tonsor.kernels.gpu.launch, tonsor.kernels.gpu.roofline
print("triton" in sys.modules)
"""


def said_by(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_triton_it_says_how_to_get_it() -> None:
    said = said_by(BLOCKED)
    assert said.startswith("False the kernel for GPUs needs Triton, which can't be imported")
    assert said.endswith("install it: pip install 'triton>=3.4'")


def test_importing_it_does_not_import_triton() -> None:
    assert said_by(LOOKED_AT) == "False"
