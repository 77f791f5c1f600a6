"""The library of a process: where it comes from, and what it says when there can be none."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from tests.kernels.standin import SOURCE, Home, greets, script
from tonsor.errors import SelectionError
from tonsor.kernels import cache, library, source
from tonsor.kernels import level as levels
from tonsor.kernels.build import build, is_whole, library_name
from tonsor.kernels.compiler import find_compiler
from tonsor.kernels.level import choose_level
from tonsor.kernels.library import KernelWarning, State

REAL = shutil.which("g++") or shutil.which("c++")
needs_compiler = pytest.mark.skipif(REAL is None, reason="needs g++ or c++")


def none_because(said: str) -> State:
    """Ask twice, and see that there is nothing, with one warning that says why."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert library.library() is None
        assert library.library() is None
        found = library.state()
    assert [w.category for w in heard] == [KernelWarning]
    text = str(heard[0].message)
    assert said in text
    assert "\n" not in text
    assert "`tonsor doctor`" in text
    assert found.how == "none"
    assert said in found.why
    return found


def works(found: ctypes.CDLL | None) -> bool:
    return found is not None and found.tonsor_threads(1) == 1


# ---------------------------------------------------------------- where it comes from


@needs_compiler
def test_it_is_compiled_once_and_then_found(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert library.look().how == "none"
    assert "not compiled yet" in library.look().why
    assert home.libraries() == []
    first = library.library()
    assert works(first)
    state = library.state()
    assert (state.how, state.level, state.why, state.openmp) == (
        "compiled", choose_level(), "", True,
    )  # fmt: skip
    assert state.seconds > 0
    assert [state.path] == home.libraries()
    assert home.left_behind() == []
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert "compiling kernels" in said[0]
    assert str(state.path) in said[1]
    assert library.library() is first
    assert library.look() is state
    library.forget()
    assert works(library.library())
    assert library.state().how == "cached"
    assert library.state().path == state.path
    assert capfd.readouterr().err == ""


@needs_compiler
def test_other_sources_are_compiled_anew(home: Home) -> None:
    before = library.state().path
    home.write(SOURCE + "// another text\n")
    library.forget()
    assert library.state().how == "compiled"
    assert library.state().path != before
    assert cache.clean() == [before]
    assert home.libraries() == [library.state().path]


@needs_compiler
def test_what_was_compiled_is_of_use_without_the_compiler(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = library.state().path
    library.forget()
    monkeypatch.setenv("CXX", "/bin/false")
    assert works(library.library())
    assert (library.state().how, library.state().path) == ("cached", made)


@needs_compiler
def test_what_was_installed_goes_first_if_it_is_of_these_sources(home: Home) -> None:
    level = choose_level()
    path = home.prebuilt / library_name(level)
    build(level, find_compiler(), path, tuned=False)
    assert works(library.library())
    assert (library.state().how, library.state().path) == ("prebuilt", path)
    assert home.libraries() == []
    home.write(SOURCE + "// another text\n")
    library.forget()
    assert library.state().how == "compiled"


@needs_compiler
def test_what_was_installed_but_does_not_load_is_compiled_here(home: Home) -> None:
    (home.prebuilt / library_name(choose_level())).write_bytes(b"for another system")
    assert works(library.library())
    assert library.state().how == "compiled"


# ---------------------------------------------------------------- files that are not right


@needs_compiler
@pytest.mark.parametrize("harm", ["torn", "empty", "text", "abi", "level"])
def test_a_library_that_is_not_right_is_made_anew(home: Home, harm: str) -> None:
    level, compiler = choose_level(), find_compiler()
    home.cache.mkdir(mode=0o700)
    path = home.cache / library_name(level, compiler)
    if harm in ("abi", "level"):
        other = home.temporary / "other"
        other.mkdir()
        (other / "one.cpp").write_text(SOURCE)
        (other / "numbers.h").write_text(f"#define ABI {source.ABI + (harm == 'abi')}\n")
        build("base" if harm == "level" else level, compiler, path, folder=other)
        if harm == "level" and level == "base":
            pytest.skip("this processor has one level only")
    else:
        build(level, compiler, path)
        data = path.read_bytes()
        path.write_bytes({"torn": data[: len(data) // 2], "empty": b"", "text": b"no"}[harm])
    assert works(library.library())
    assert library.state().how == "compiled"
    assert is_whole(path)
    library.forget()
    assert library.state().how == "cached"


@needs_compiler
def test_without_the_openmp_of_torch_it_is_made_for_one_thread(home: Home) -> None:
    home.write(
        SOURCE.replace(
            "int seen = 0;",
            "int seen = 0;\n#ifdef _OPENMP\n  seen = omp_get_what_is_nowhere();\n#endif",
        ).replace("extern", 'extern "C" int omp_get_what_is_nowhere(void);\nextern', 1)
    )
    found = library.library()
    assert found is not None
    assert found.tonsor_threads(2) == 1
    assert library.state().how == "compiled"
    assert not library.state().openmp
    assert "one thread only" in library.state().why
    library.forget()
    assert library.state().how == "cached"
    assert "one thread only" in library.state().why


# ---------------------------------------------------------------- there can be none


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("exit 1", "does not work"),
        (greets("echo 'error: licence expired'; exit 3"), "error: licence expired; set CXX"),
        (greets("exit 0"), "it said nothing"),
        (greets('while [ "$1" ]; do [ "$1" = -o ] && echo junk > "$2"; shift; done'), "be loaded"),
    ],
    ids=["fails", "refuses", "lazy", "garbage"],
)
def test_a_broken_compiler(
    home: Home, compiler: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", compiler)))
    none_because(said)
    assert home.left_behind() == []


def test_no_compiler(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.temporary))
    assert none_because("install g++").level == choose_level()


def test_another_system(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    none_because("made for Linux, and this is win32")


def test_off_is_quiet(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONSOR_KERNELS", "off")
    assert library.library() is None  # warnings are errors here
    assert library.state() == State(how="none", why="TONSOR_KERNELS=off")


def test_a_wish_that_there_is_not_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONSOR_KERNELS", "v5")
    with pytest.raises(SelectionError, match="'v5', which is none of off, v4, v3, base; correct"):
        library.library()
    monkeypatch.setenv("TONSOR_KERNELS", "off")
    assert library.library() is None


# ---------------------------------------------------------------- levels

ALL_FLAGS = "fpu avx2 fma avx512f avx512bw avx512dq avx512vl"


@pytest.mark.skipif(not source.is_x86(), reason="levels above the base are for x86-64")
@pytest.mark.parametrize(
    ("capability", "flags", "expected"),
    [
        ("AVX512", ALL_FLAGS, "v4"),
        ("AVX512_VNNI", ALL_FLAGS, "v4"),
        ("AVX2", ALL_FLAGS, "v3"),
        ("DEFAULT", ALL_FLAGS, "base"),
        ("AVX512", ALL_FLAGS.replace("avx512vl", ""), "v3"),
        ("AVX512", "fpu avx2", "base"),
        ("AVX2", "fpu fma", "base"),
        ("AVX512", "", "v4"),
    ],
)
def test_the_level_is_what_torch_and_the_processor_agree_on(
    home: Home, capability: str, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(levels, "cpu_facts", lambda: {"flags": flags} if flags else {})
    assert choose_level() == expected
    for wish in source.LEVELS:
        monkeypatch.setenv("TONSOR_KERNELS", wish)
        lost = [f for f in levels._NEEDS[wish] if flags and f not in flags.split()]
        if lost:
            assert none_because(f"this processor lacks {', '.join(lost)}").level == ""
            library.forget()
        else:
            assert choose_level() == wish


def test_elsewhere_there_is_one_level(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "is_x86", lambda: False)
    monkeypatch.setattr(levels.platform, "machine", lambda: "aarch64")
    assert choose_level() == "base"
    monkeypatch.setenv("TONSOR_KERNELS", "v3")
    none_because("is no x86-64 one but aarch64")


@needs_compiler
def test_a_level_that_is_asked_for_is_the_one_that_comes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONSOR_KERNELS", "base")
    found = library.library()
    assert found is not None
    assert found.tonsor_level() == b"base"
    assert library.state().level == "base"


# ---------------------------------------------------------------- many at once


@needs_compiler
def test_threads_share_one_library(home: Home, counted: Path) -> None:
    found: list[ctypes.CDLL | None] = []
    threads = [threading.Thread(target=lambda: found.append(library.library())) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(found) == 6
    assert {id(one) for one in found} == {id(library.library())}
    assert counted.read_text().count("link") == 1


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a compiler that takes its time, and writes down each library that it makes."""
    log = tmp_path / "log"
    log.touch()
    slow = f'case "$*" in *-shared*) echo link >> {log}; sleep 0.2;; esac\nexec {REAL} "$@"'
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", slow)))
    return log


def in_children(many: int) -> list[int]:
    """Ask for the library in processes that start at once, and return how each ended."""
    read, write = os.pipe()
    children = []
    for _ in range(many):
        child = os.fork()
        if child == 0:
            code = 1
            signal.alarm(30)  # so that one which waits for ever ends the test, not the tests
            try:
                os.close(write)
                os.read(read, 1)  # ends when the parent lets go, for all of them
                code = 0 if works(library.library()) else 2
            finally:
                os._exit(code)
        children.append(child)
    os.close(read)
    os.close(write)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@needs_compiler
@pytest.mark.parametrize("locks", [True, False])
def test_processes_share_one_library(
    home: Home, counted: Path, locks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not locks:
        import fcntl

        def refuse(*_: object) -> None:
            raise OSError(38, "no locks here")

        monkeypatch.setattr(fcntl, "flock", refuse)
    assert in_children(5) == [0] * 5
    assert len(home.libraries()) == 1
    assert is_whole(home.libraries()[0])
    assert home.left_behind() == []
    made = counted.read_text().count("link")
    assert made == 1 if locks else made > 1
    assert library.state().how == "cached"


@needs_compiler
def test_a_fork_does_not_wait_for_threads_that_it_does_not_have(home: Home) -> None:
    library.library()
    library.forget()
    with library._lock:
        assert in_children(1) == [0]


class Asking(Dataset[bool]):
    """Runs the kernels in the worker of a loader."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> bool:
        return works(library.library())


@needs_compiler
@pytest.mark.parametrize("before", [True, False])
def test_workers_of_loaders_have_it_too(home: Home, before: bool) -> None:
    if before:
        library.library()
    loader = DataLoader(Asking(), batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert list(loader) == [True, True]


ONE_POOL = """
import sys
from pathlib import Path
from tonsor.kernels import library, source
source.FOLDER = Path(sys.argv[1])
found = library.library()
assert found.tonsor_threads(2) == 2
import torch
torch.set_num_threads(2)
torch.randn(600, 600) @ torch.randn(600, 600)
maps = Path("/proc/self/maps").read_text().splitlines()
print(library.state().openmp, len({x.split()[-1] for x in maps if "gomp" in x or "iomp" in x}))
"""


@needs_compiler
def test_there_is_one_pool_of_threads_in_a_process(home: Home) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(source.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", ONE_POOL, str(home.sources)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1"]
