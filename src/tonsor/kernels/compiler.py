"""Which C++ compiler there is, and running it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tonsor.errors import EngineError

TIMEOUT = 120.0
_NAMES = ("g++", "clang++", "c++")
_SHOWN = 600  # of what a compiler says


@dataclass(frozen=True, kw_only=True, slots=True)
class Compiler:
    """A C++ compiler: the words that call it, and how it introduces itself."""

    command: tuple[str, ...]
    version: str

    @property
    def is_clang(self) -> bool:
        """Whether it is clang, whose OpenMP is not the one that torch brings."""
        return "clang" in self.version.lower()


def find_compiler() -> Compiler:
    """Return the compiler that CXX names, or else the first of g++, clang++ and c++."""
    wanted = os.environ.get("CXX", "").strip()
    if wanted:
        return _known(_words(wanted), "CXX")
    for name in _NAMES:
        if path := shutil.which(name):
            return _known((path,), "PATH")
    message = (
        f"there is no C++ compiler ({', '.join(_NAMES)}); install g++, or name one by the "
        "environment variable CXX"
    )
    raise EngineError(message)


def _words(wanted: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(wanted))
    except ValueError:
        words = ()
    found = shutil.which(words[0]) if words else None
    if found is None:
        message = f"CXX names '{wanted}', which can't be found; correct or unset CXX"
        raise EngineError(message)
    return (str(Path(found).absolute()), *words[1:])  # it will run in another folder


def _known(command: tuple[str, ...], origin: str) -> Compiler:
    code, said = call([*command, "--version"], timeout=20)
    if code or not said.strip():
        message = (
            f"the compiler '{shlex.join(command)}' (from {origin}) does not work: it ended with "
            f"{code} when asked for its version; install g++, or set CXX"
        )
        raise EngineError(message)
    return Compiler(command=command, version=said.strip().splitlines()[0].strip())


def call(
    command: Sequence[str], where: Path | None = None, timeout: float | None = None
) -> tuple[int, str]:
    """Run a command in a folder, and return its exit code and what it said."""
    timeout = TIMEOUT if timeout is None else timeout
    own = os.environ | {"LC_ALL": "C"} | ({"TMPDIR": str(where)} if where else {})
    try:
        # A session of its own, so that a compiler that hangs ends with all that it started.
        running = subprocess.Popen(
            command, cwd=where, env=own, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return 127, f"{command[0]}: {error.strerror or error}"
    try:
        said, _ = running.communicate(timeout=timeout)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        message = (
            f"the compiler '{command[0]}' was ended after {timeout:.0f} seconds; set CXX to "
            "another, or try again on a machine that is less busy: tonsor doctor --build"
        )
        raise EngineError(message) from None
    return running.returncode, said.decode("utf-8", "replace")


def shortened(said: str) -> str:
    """Return in one line what matters of what a compiler said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower()] or lines
    text = " | ".join(wrong)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + " ..."
