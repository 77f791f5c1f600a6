"""The kernels read and write nothing beyond what is theirs, and do nothing that C++ leaves open.

They are compiled with the sanitizers of the compiler, which end a process that does. Tensors are
exactly as large as they say, and memory behind them is watched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.cases import levels
from tonsor.errors import EngineError
from tonsor.kernels.compiler import Compiler, call, find_compiler
from tonsor.kernels.source import LEVELS, source_files

ROOT = Path(__file__).resolve().parents[2]
WATCH = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g")

RUN = """
import ctypes, random, sys, torch
from tests.kernels.cases import Case, drawn
from tests.kernels.chains import drawn_chain, line, same
from tonsor.kernels import again, chain, convolve
found = ctypes.CDLL(sys.argv[1])
again.library = chain.library = convolve.library = lambda: found
for seed in range(int(sys.argv[2])):
    torch.set_num_threads(random.Random(seed).choice([1, 1, 2, 3]))
    case = drawn(seed, 2e5)
    case.check()
    call = again.Again(case.packed(), case.x, case.geometry, relu=case.relu)
    assert torch.equal(call(case.x, case.given_residual), case.found()), case
    links = drawn_chain(seed)
    assert same(links.found(), links.wanted()), links
print("all right", flush=True)
for form in ("stripes", "panels", "dots"):
    links = line(form)
    short = links.chain()
    chain.release()
    short._size -= 64 * (sys.argv[3] == form + " in a chain")
    short(links.given)
case, call = Case("panels"), convolve._call()
packed, out = case.packed(), torch.empty(case.shape)
for form in ("stripes", "panels", "dots"):
    x = torch.empty(case.x.numel() - (sys.argv[3] == form))
    packed = Case(form).packed()
    call(packed.data_ptr(), x.data_ptr(), None, out.data_ptr(), 2, 6, 5, 6, 5, 1, 1, 0, 0, 1)
print("to the end")
"""


def compiler() -> Compiler:
    try:
        found = find_compiler()
    except EngineError as error:
        pytest.skip(str(error))
    if found.is_clang:
        pytest.skip("the sanitizers of clang can't be loaded ahead of Python in this way")
    return found


@pytest.fixture(scope="module", params=levels())
def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of kernels that are watched, of one level."""
    folder = tmp_path_factory.mktemp("watched")
    sources = [str(path.resolve()) for path in source_files() if path.suffix == ".cpp"]
    words = ["-std=c++17", "-fPIC", "-shared", "-fopenmp", *WATCH, *LEVELS[request.param]]
    target = folder / "watched.so"
    code, said = call([*compiler().command, *words, *sources, "-o", str(target)], folder)
    assert not code, said
    return target


def ran(library: Path, seeds: int, short: str) -> subprocess.CompletedProcess[str]:
    """Run some convolutions and chains, and some at the end that may be a few numbers short."""
    watchers = []
    for name in ("libasan.so", "libubsan.so"):
        _, said = call([*compiler().command, f"-print-file-name={name}"])
        watchers.append(said.strip())
    if not all(Path(path).is_absolute() for path in watchers):
        pytest.skip("the compiler has no sanitizers")
    told = {
        "LD_PRELOAD": ":".join(watchers), "ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-c", RUN, str(library), str(seeds), short], env=os.environ | told,
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_no_convolution_reads_or_writes_what_is_not_its_own(watched: Path) -> None:
    done = ran(watched, 400, "none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n")[:2] == ["all right", "to the end"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["stripes", "panels", "dots"])
@pytest.mark.parametrize("where", ["", " in a chain"])
def test_one_number_too_few_would_be_seen(watched: Path, form: str, where: str) -> None:
    done = ran(watched, 0, form + where)
    assert done.returncode != 0
    assert "ERROR: AddressSanitizer" in done.stderr
    assert "to the end" not in done.stdout
