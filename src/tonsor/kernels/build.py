"""Compiling the kernels into one shared library."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from pathlib import Path

from tonsor.errors import EngineError
from tonsor.kernels.compiler import Compiler, call, shortened
from tonsor.kernels.source import FLAGS, LEVELS, is_x86, source_files, source_key

_SEAL = b"\0tonsor-seal\0"


def library_name(level: str, compiler: Compiler | None = None, folder: Path | None = None) -> str:
    """Name the library that these sources become: the same name means the same content.

    A wheel carries libraries by the sources alone; its compiler is not known where it is used.
    """
    key = source_key(level, folder)
    if compiler is None:
        return f"{level}-{key}.so"
    words = "\0".join([*_tuning(tuned=True), compiler.version])
    return f"{level}-{key}-{hashlib.sha256(words.encode()).hexdigest()[:8]}.so"


def build(
    level: str,
    compiler: Compiler,
    target: Path,
    *,
    folder: Path | None = None,
    openmp: bool = True,
    tuned: bool = True,
) -> None:
    """Compile the sources for a level into `target`, which is there whole or not at all.

    With OpenMP if the compiler has that of GNU, which torch brings the library of; else for one
    thread. `tuned` orders instructions as this processor likes best, and runs on others too.
    """
    key = source_key(level, folder)
    sources = [str(p.resolve()) for p in source_files(folder) if p.suffix == ".cpp"]
    basic = [*FLAGS, *LEVELS[level], *_tuning(tuned), f'-DTONSOR_LEVEL="{level}"']
    parallel = ["-fopenmp"] if openmp and not compiler.is_clang else []
    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
            work = Path(name)
            _compile(compiler, [*basic, "-c", *sources], parallel, work)
            made = work / "made"
            _link(compiler, sorted(str(p) for p in work.glob("*.o")), made)
            if source_key(level, folder) != key:
                message = "the sources of the kernels changed while they were compiled; try again"
                raise EngineError(message)
            seal(made)
            made.chmod(0o755)
            made.replace(target)
    except OSError as error:
        message = (
            f"the kernels can't be written to '{target.parent}': {error.strerror or error}; make "
            "room there, or set TONSOR_CACHE to another folder"
        )
        raise EngineError(message) from error


def _tuning(tuned: bool) -> tuple[str, ...]:
    return ("-mtune=native",) if tuned and is_x86() else ()


def _compile(compiler: Compiler, words: list[str], parallel: list[str], work: Path) -> None:
    code, said = call([*compiler.command, *parallel, *words], work)
    if code and parallel:  # perhaps it has no OpenMP
        code, said = call([*compiler.command, *words], work)
    if code:
        raise EngineError(_refused(compiler, code, said))


def _link(compiler: Compiler, objects: list[str], made: Path) -> None:
    """Link without naming a library of OpenMP: its calls must meet the one that torch loaded.

    With a second one in the process, its threads and those of torch would fight for the cores.
    The C++ library is that of torch too: one linked in would ask for a newer system than torch.
    """
    code, said = call([*compiler.command, "-shared", *objects, "-o", str(made)], made.parent)
    if code or not made.is_file():
        raise EngineError(_refused(compiler, code, said))


def _refused(compiler: Compiler, code: int, said: str) -> str:
    return (
        f"the compiler '{shlex.join(compiler.command)}' ({compiler.version}) could not compile the "
        f"kernels, and ended with {code}: {shortened(said) or 'it said nothing'}; set CXX to "
        "another compiler"
    )


# ---------------------------------------------------------------- whole or torn


def seal(path: Path) -> None:
    """Append the checksum of a library to it, where those who load it don't look."""
    data = path.read_bytes()
    with path.open("ab") as file:
        file.write(_SEAL + hashlib.sha256(data).digest())
        file.flush()
        os.fsync(file.fileno())


def is_whole(path: Path) -> bool:
    """Say whether a library is as it was sealed; loading a torn one may end the process."""
    data, mark, digest = path.read_bytes().rpartition(_SEAL)
    return bool(mark) and hashlib.sha256(data).digest() == digest


def uses_openmp(path: Path) -> bool:
    """Say whether a library shares its work among threads."""
    return b"GOMP_parallel" in path.read_bytes()
