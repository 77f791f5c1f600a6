"""The kernel compiles for GPUs that are not here, and uses what makes them fast.

Triton brings a compiler for all of them. It runs in a process of its own, which nothing that was
interpreted before can disturb.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tonsor.kernels.gpu.kernel import fibre_conv

asked = json.loads(sys.argv[1])
fixed, chip, kind = asked["fixed"], asked["chip"], asked["kind"]
kernel = triton.jit(fibre_conv)
kinds = dict.fromkeys(("x", "out", "weight", "bias", "residual"), "*" + kind)
kinds |= dict.fromkeys(("table", "starts", "filters"), "*i32")
signature = {
    name: "constexpr" if name in fixed else kinds.get(name, "i32") for name in kernel.arg_names
}
even = {*kinds, "x_n", "x_h", "x_w"} - set(fixed)
hints = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in even}
values = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
source = ASTSource(kernel, signature, values, hints)
options = {"num_warps": 4, "num_stages": 3}
made = triton.compile(source, target=GPUTarget("cuda", chip, 32), options=options)
code = made.asm["ptx"]
found = {word: len(re.findall(word, code)) for word in ("wgmma.mma_async", "mma.sync")}
# Copies of 16 bytes, from memory past the registers.
found["cp.async"] = len(re.findall(r"cp\\.async\\.c[ag][^;]*, 0x10", code))
print(json.dumps(found))
"""
FIXED: dict[str, Any] = {
    "BM": 64, "BN": 32, "BK": 32, "RUNS": True, "FULL": True, "ALIGNED": True, "INSIDE": False,
    "ORDERED": False, "BIAS": True, "RESIDUAL": True, "RELU": True, "WIDE": False,
    "PRECISION": "ieee", "x_c": 1, "out_c": 1, "res_c": 1,
}  # fmt: skip
LISTED = {"RUNS": False, "FULL": False, "ALIGNED": False, "ORDERED": True}
MADE = [
    ("runs for an H100", 90, "bf16", {}, "wgmma.mma_async"),
    ("runs for an A100", 80, "fp16", {"BN": 16, "BK": 64}, "mma.sync"),
    ("lists for an H100", 90, "bf16", LISTED, "wgmma.mma_async"),
    ("tf32 for an L4", 89, "fp32", {"PRECISION": "tf32"}, "mma.sync"),
    ("far offsets for an A100", 80, "fp16", {"WIDE": True, **LISTED}, "mma.sync"),
    ("far runs for an A100", 80, "fp16", {"WIDE": True}, "mma.sync"),
]


def made(folder: Path, chip: int, kind: str, changes: dict[str, Any]) -> dict[str, int]:
    """How often some instructions are in what comes out for a chip."""
    pytest.importorskip("triton", reason="Triton can't be imported here")
    asked = json.dumps({"fixed": FIXED | changes, "chip": chip, "kind": kind})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, asked], capture_output=True, text=True, check=False,
        env=os.environ | {"TRITON_CACHE_DIR": str(folder), "TRITON_INTERPRET": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", MADE, ids=[m[0] for m in MADE])
def test_it_compiles_to_what_tensor_cores_run(
    case: tuple[str, int, str, dict[str, Any], str], tmp_path: Path
) -> None:
    _, chip, kind, changes, word = case
    found = made(tmp_path, chip, kind, changes)
    assert found[word] > 0
    assert found["cp.async"] > 0  # the weights, at least


def test_the_channels_of_a_run_are_copied_together(tmp_path: Path) -> None:
    copies = {
        aligned: made(tmp_path, 90, "bf16", {"ALIGNED": aligned})["cp.async"]
        for aligned in (True, False)
    }
    assert copies[True] > copies[False]
