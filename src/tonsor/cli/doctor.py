"""`tonsor doctor`: what there is on this machine, and whether it works."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

import torch
from torch import nn

from tonsor._version import __version__
from tonsor.anatomy import inspect
from tonsor.cli.options import Doctor
from tonsor.cli.show import show_json, show_table
from tonsor.cost.engines.ready import engines
from tonsor.errors import TonsorError
from tonsor.kernels import cache, library
from tonsor.kernels.compiler import find_compiler
from tonsor.kernels.level import cpu_facts
from tonsor.select.make import plan

_OPTIONAL = (
    "transformers", "timm", "torchvision", "accelerate", "triton", "onnx", "onnxruntime",
    "openvino",
)  # fmt: skip


def doctor(command: Doctor) -> int:
    """Show what is here; fail if pruning does not work, or, strictly, if there are no kernels."""
    gone = cache.clean() if command.clean else []
    kernels = library.state() if command.build else library.look()
    works, what = _check()
    rows = [
        *_machine(), *_software(), ("compiler", _compiler()), ("cache", str(cache.cache_folder())),
    ]  # fmt: skip
    if command.json:
        data = dict(rows) | {"kernels": _plain(kernels), "removed": [str(p) for p in gone]}
        show_json(data | {"check": what, "works": works})
    else:
        rows += [("removed", str(path)) for path in gone]
        show_table(("", "here"), [*rows, *_kernels(kernels), ("check", what)])
    return 1 if not works or (command.strict and kernels.how == "none") else 0


def _machine() -> list[tuple[str, str]]:
    cpu = cpu_facts().get("model name") or platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return [
        ("system", platform.platform()),
        ("processor", f"{cpu} ({capability})"),
        ("threads", str(torch.get_num_threads())),
        ("GPU", cuda),
    ]


def _software() -> list[tuple[str, str]]:
    rows = [("tonsor", __version__), ("python", platform.python_version())]
    rows += [(n, _version(n)) for n in ("torch", "numpy", "safetensors", "rich", "tyro")]
    rows.append(("oneDNN", "available" if torch.backends.mkldnn.is_available() else "none"))
    rows += [(f"{n} (optional)", _version(n)) for n in _OPTIONAL]
    return rows + [(f"engine {n}", why or "available") for n, why in engines().items()]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _kernels(state: library.State) -> list[tuple[str, str]]:
    if state.how == "none":
        return [("kernels", f"none: {state.why}")]
    took = f", in {state.seconds:.1f} seconds" if state.seconds else ""
    threads = "many threads" if state.openmp else "one thread"
    rows = [
        ("kernels", f"{state.how}{took}, level {state.level}, {threads}"),
        ("kernels are in", str(state.path)),
    ]
    return rows + ([("kernels, note", state.why)] if state.why else [])


def _plain(state: library.State) -> dict[str, Any]:
    data = dataclasses.asdict(state)
    return data | {"path": str(state.path) if state.path else None}


def _compiler() -> str:
    try:
        found = find_compiler()
    except TonsorError as error:
        return f"none: {error}"
    return f"{' '.join(found.command)} ({found.version})"


def _check() -> tuple[bool, str]:
    """Prune a small network, and say how that went."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    try:
        anatomy = inspect(net.eval(), torch.randn(2, 3, 8, 8))
        decided = plan(anatomy, "params=50%")
        return True, str(decided.prove(net, decided.apply(net, verify=False)))
    except Exception as error:  # noqa: BLE001  whatever it is, the doctor is asked for it
        return False, f"{type(error).__name__}: {error}"
