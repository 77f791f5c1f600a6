"""A library that compiles at once, in a home of its own, instead of the kernels."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tonsor.kernels import library, source

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("c++")), reason="needs g++ or c++"
)
SOURCE = """
#include "numbers.h"
extern "C" int tonsor_abi(void) { return ABI; }
extern "C" const char *tonsor_level(void) { return TONSOR_LEVEL; }
extern "C" int tonsor_threads(int wanted) {
  int seen = 0;
#pragma omp parallel num_threads(wanted) reduction(+ : seen)
  seen += 1;
  return seen;
}
"""


@dataclass(frozen=True)
class Home:
    """Where the sources are, and where the libraries go."""

    sources: Path
    cache: Path
    temporary: Path
    prebuilt: Path

    def write(self, text: str = SOURCE, abi: int = source.ABI) -> None:
        (self.sources / "one.cpp").write_text(text)
        (self.sources / "numbers.h").write_text(f"#define ABI {abi}\n")

    def libraries(self) -> list[Path]:
        folders = (self.cache, *self.temporary.glob("tonsor-kernels-*"))
        return sorted(path for folder in folders for path in folder.glob("*.so"))

    def left_behind(self) -> list[Path]:
        return [p for p in self.cache.glob("*") if p.suffix != ".so" and p.name != ".lock"]


@contextmanager
def new_home(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[Home]:
    """Give this process a home with small sources, no libraries, and no wishes of the user."""
    home = Home(folder / "sources", folder / "cache", folder / "temporary", folder / "lib")
    for each in (home.sources, home.temporary, home.prebuilt):
        each.mkdir()
    home.write()
    for name in ("CXX", "TONSOR_KERNELS", "ATEN_CPU_CAPABILITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TONSOR_CACHE", str(home.cache))
    monkeypatch.setattr(tempfile, "tempdir", str(home.temporary))
    monkeypatch.setattr(source, "FOLDER", home.sources)
    monkeypatch.setattr(library, "PREBUILT", home.prebuilt)
    library.forget()
    try:
        yield home
    finally:
        library.forget()


def script(path: Path, text: str) -> Path:
    """Write a program, such as a compiler of its own kind."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def greets(then: str) -> str:
    """Answer as a compiler when asked for the version, and else do something."""
    return f'case "$1" in --version) echo "fake 1.0"; exit 0;; esac\n{then}'
