"""What does a proof cost, next to the forward passes in float64 that it can't avoid?"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

MODELS = ("resnet50", "vgg16", "vit_b", "vit_l", "bert24", "llama32")


def main() -> None:
    """Measure each model in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--repeats", type=int, default=1, help="the least of them counts")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_one(args.one)))
        return
    print("| model | model, MiB | proof, s | float64 passes alone, s | peak, MiB | of the model |")
    print("|---|--:|--:|--:|--:|--:|")
    for name in args.models:
        runs = [_apart(name) for _ in range(args.repeats)]
        best = {key: min(run[key] for run in runs) for key in runs[0]}
        print(
            f"| {name} | {best['model_mib']:.0f} | {best['seconds']:.2f} | {best['passes']:.2f} "
            f"| {best['peak_mib']:.0f} | {best['peak_mib'] / best['model_mib']:.1f}× |",
            flush=True,
        )


def _apart(name: str) -> dict[str, float]:
    """Measure in a fresh process."""
    command = [sys.executable, str(Path(__file__)), "--one", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _one(name: str) -> dict[str, float]:
    import torch
    from measure import MIB, _bytes, _reset_peak, _status, _warm_up
    from models import MODELS as BUILT

    from tonsor import api

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _warm_up("tonsor", local=False)
    model, inputs = BUILT[name].build()
    plan = api.plan(api.inspect(model, inputs), "macs=50%")
    slim = plan.apply(model, verify=False)
    base = _reset_peak()
    start = time.process_time()
    proof = plan.prove(model, slim)
    seconds = time.process_time() - start
    peak = _status("VmHWM") - base
    probes = 2 if inputs.is_floating_point() else 1
    passes = probes * (_pass(model, inputs) + _pass(slim, inputs))
    return {
        "seconds": seconds, "peak_mib": peak / MIB, "model_mib": _bytes(model) / MIB,
        "passes": passes, "error": proof.error,
    }  # fmt: skip


def _pass(model: Any, inputs: Any) -> float:
    """Return the seconds of one forward pass in float64, nothing recorded."""
    import torch

    double = copy.deepcopy(model).double()
    given = inputs.double() if inputs.is_floating_point() else inputs
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            start = time.process_time()
            double(given)
            return time.process_time() - start
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    main()
