"""Which of the compiled levels a processor can run."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch

from tonsor.errors import EngineError, SelectionError
from tonsor.kernels.source import LEVELS, is_x86

VARIABLE = "TONSOR_KERNELS"
OFF = "off"
_CPUINFO = Path("/proc/cpuinfo")
_NEEDS = {
    "v4": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"),
    "v3": ("avx2", "fma"),
    "base": (),
}


def wanted_level() -> str:
    """Return what TONSOR_KERNELS asks for: a level, `off`, or nothing."""
    wanted = os.environ.get(VARIABLE, "").strip().lower()
    if wanted and wanted not in (OFF, *LEVELS):
        message = (
            f"{VARIABLE} is '{wanted}', which is none of {OFF}, {', '.join(LEVELS)}; correct or "
            "unset it"
        )
        raise SelectionError(message)
    return wanted


def choose_level() -> str:
    """Return the level that is asked for, or the best that torch and the processor agree on."""
    wanted = wanted_level()
    if wanted and wanted != OFF:
        if lacking := _lacking(wanted):
            message = f"{VARIABLE} asks for '{wanted}', but this processor {lacking}; unset it"
            raise EngineError(message)
        return wanted
    capability = torch.backends.cpu.get_cpu_capability()  # heeds ATEN_CPU_CAPABILITY
    if capability.startswith("AVX512") and not _lacking("v4"):
        return "v4"
    if capability.startswith("AVX") and capability != "AVX" and not _lacking("v3"):
        return "v3"
    return "base"


def _lacking(level: str) -> str:
    """Say what a processor lacks for a level; what can't be read is taken to be there."""
    if level == "base":
        return ""
    if not is_x86():
        return f"is no x86-64 one but {platform.machine()}"
    flags = cpu_facts().get("flags", "").split()
    lost = [name for name in _NEEDS[level] if flags and name not in flags]
    return f"lacks {', '.join(lost)}" if lost else ""


@functools.cache
def cpu_facts() -> dict[str, str]:
    """Return what the system says about the first processor, such as its name and its flags."""
    try:
        text = _CPUINFO.read_text("utf-8", "replace")
    except OSError:
        return {}
    lines = text.split("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs if value}
