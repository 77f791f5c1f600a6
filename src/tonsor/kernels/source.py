"""The C++ sources of the kernels, the levels they are compiled for, and the key of both."""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

from tonsor.errors import EngineError

FOLDER = Path(__file__).with_name("csrc")
ABI = 1  # what `tonsor_abi` of the sources must return; both go up when a call changes

# Not -ffast-math: NaN and infinity must come out of a kernel as they come out of torch.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC")
LEVELS = {
    "v4": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
    "v3": ("-mavx2", "-mfma"),
    "base": (),
}


def is_x86() -> bool:
    """Say whether this machine is an x86-64 one."""
    return platform.machine().lower() in ("x86_64", "amd64")


def check_system() -> None:
    """Refuse systems that the kernels are not made for."""
    if sys.platform != "linux":
        message = f"the kernels are made for Linux, and this is {sys.platform}; torch does the work"
        raise EngineError(message)


def source_files(folder: Path | None = None) -> list[Path]:
    """List all sources, headers included."""
    folder = folder or FOLDER
    files = sorted(p for p in folder.glob("*") if p.suffix in (".cpp", ".h"))
    if not any(p.suffix == ".cpp" for p in files):
        message = (
            f"no sources of the kernels in '{folder}', so the installation is not whole; install "
            "tonsor anew"
        )
        raise EngineError(message)
    return files


def source_key(level: str, folder: Path | None = None) -> str:
    """Name the sources at hand, compiled for a level: another text has another key."""
    found = hashlib.sha256()
    for part in (str(ABI), *FLAGS, level, *LEVELS[level]):
        found.update(part.encode() + b"\0")
    for path in source_files(folder):
        data = path.read_bytes()
        found.update(f"{path.name}\0{len(data)}\0".encode() + data)
    return found.hexdigest()[:16]
