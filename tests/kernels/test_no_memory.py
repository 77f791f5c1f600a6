"""Where a kernel gets no memory to work in, it says so, and later calls go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form

ROOT = Path(__file__).resolve().parents[2]

# Each needs far more memory to work in than what it is given takes.
LARGE: dict[Form, tuple[Geometry, tuple[int, int]]] = {
    "stripes": (Geometry(1, 400_000, (1, 1)), (1, 1)),
    "panels": (Geometry(64, 1, (1, 1), (1, 2**17), (0, 0, 2**17, 0)), (1, 1)),
    "dots": (Geometry(1, 1, (48, 48)), (95, 95)),
}
RUN = """
import resource, sys, torch
from tests.kernels.test_no_memory import LARGE
from tonsor.kernels.again import Again
from tonsor.kernels.chain import Chain, Link
from tonsor.kernels.convolve import convolve
from tonsor.kernels.packed import pack
form, more = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))
torch.ones(10**6).exp()  # threads need memory too
shape, sides = LARGE[form]
packed = pack(torch.ones(shape.out_channels, shape.inputs, *shape.kernel), None, shape, form)
x = torch.ones(1, shape.in_channels, *sides)
again = Again(packed, x, shape, relu=False)
chain = Chain([Link(packed, shape, False, 0)], [x], [1])
calls = lambda: convolve(packed, x, shape), lambda: again(x, None), lambda: chain([x])[0]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
for call in calls:
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(*{float(call().sum()) for call in calls})
"""
SUMS = {"stripes": 400_000.0, "panels": 64.0, "dots": 48.0**4}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threads", [1, 3])
def test_where_there_is_no_memory_it_says_so_and_goes_on(form: Form, threads: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, form, str(2**23), str(threads)], capture_output=True,
        text=True, timeout=300, check=False, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    *said, found = done.stdout.splitlines()
    assert len(said) == 3, done.stdout
    assert all(line.startswith("EngineError") and "not enough memory" in line for line in said)
    assert float(found) == SUMS[form]
