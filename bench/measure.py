"""One measurement in a process of its own, printed as one line of JSON; `engine.py` calls it."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from models import MODELS
from torch import nn

from tonsor import api

MIB = 2**20
OUT_OF_TIME = 124


def main() -> None:
    """Measure one engine on one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=("tonsor", "peer", "stages", "worst"))
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--timeout", type=float, default=120.0, help="CPU seconds")
    parser.add_argument("--memory-gib", type=float, default=12.0)
    parser.add_argument("--local", action="store_true", help="the peer ranks within each layer")
    parser.add_argument("--order", choices=("own", "cumulative"), default="own")
    parser.add_argument("--number", type=int, default=25)
    parser.add_argument("--no-proof", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = MODELS[args.model]
    _warm_up(args.engine, args.local)
    _touch(args.memory_gib / 3)
    model, inputs = chosen.build()
    limit = int(args.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    threading.Thread(target=_end_after, args=(args.timeout,), daemon=True).start()
    if args.engine == "stages":
        from stages import run

        found = run(model, inputs, prove=not args.no_proof)
    elif args.engine == "worst":
        from stages import worst

        rows = worst(model, inputs, args.order, args.number, prove=not args.no_proof)
        found = {"worst": rows}
    else:
        found = _measure(args.engine, model, inputs, chosen.head, local=args.local)
    print(json.dumps(found))


def _end_after(seconds: float) -> None:
    """End this process once it has used so many CPU seconds more.

    The system's own limits would do, but once they are set its clock ticks only each 4 ms.
    """
    last = time.process_time() + seconds
    while time.process_time() < last:
        time.sleep(0.5)
    os._exit(OUT_OF_TIME)


def _warm_up(engine: str, local: bool) -> None:
    """Prune a tiny net, so that what is imported at first use is not charged to the engine."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    data = torch.randn(1, 3, 8, 8)
    if engine == "peer":
        import peer

        peer.cut(net, data, "3", everywhere=not local)
    else:
        api.prune(net.eval(), data, budget="macs=50%")


def _touch(gib: float) -> None:
    """Write to as much memory as will be used, and give it back.

    The host of a virtual machine hands out memory at its first use, which takes up to ten
    times as long as every later use and would be charged to whoever comes first.
    """
    torch.empty(int(gib * 2**28)).fill_(0)


def _measure(
    engine: str, model: nn.Module, inputs: Any, head: str, *, local: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"params": _params(model), "model_mib": _bytes(model) / MIB}
    base = _reset_peak()
    wall, start = time.perf_counter(), time.process_time()
    try:
        slim = _cut(engine, model, inputs, head, local, found)
    except Exception as error:  # noqa: BLE001  how an engine fails is a result
        found["failed"] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        slim = None
    found["seconds"] = time.process_time() - start - found.get("proof_seconds", 0.0)
    found["wall_seconds"] = time.perf_counter() - wall
    if "peak_mib" not in found:
        found["peak_mib"] = (_status("VmHWM") - base) / MIB
    else:
        found["peak_mib"] = (found["peak_mib"] - base) / MIB
        found["peak_with_proof_mib"] = (_status("VmHWM") - base) / MIB
    if slim is not None:
        found["params_after"] = _params(slim)
        found["runs"] = _runs(slim, inputs)
    return found


def _cut(
    engine: str, model: nn.Module, inputs: Any, head: str, local: bool, found: dict[str, Any]
) -> nn.Module:
    if engine == "peer":
        import peer

        peer.cut(model, inputs, head, everywhere=not local)
        return model
    anatomy = api.inspect(model, inputs)
    plan = api.plan(anatomy, "macs=50%")
    slim = plan.apply(model, verify=False)
    found["macs_share"] = anatomy.cost.macs(plan.counts) / anatomy.cost.macs()
    found["peak_mib"] = _status("VmHWM")
    start = time.process_time()
    try:
        found["proof_error"] = plan.prove(model, slim).error
    except Exception as error:  # noqa: BLE001  how an engine fails is a result
        found["proof_failed"] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    found["proof_seconds"] = time.process_time() - start
    return slim


def _runs(model: nn.Module, inputs: Any) -> str:
    """Run what was cut, and say "yes" or what went wrong."""
    try:
        with torch.no_grad():
            model(inputs)
    except Exception as error:  # noqa: BLE001  whatever the cut model raises is the finding
        return f"{type(error).__name__}: {error}".split("\n")[0][:160]
    return "yes"


def _params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _reset_peak() -> int:
    """Give freed memory back, forget the peak so far, and return what is held now."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    main()
