"""How fast and how lean is the engine, next to Torch-Pruning, on models of real size?

Trace, group, score, plan and cut at one half, in CPU seconds of one thread, and the peak of
resident memory above the model. Each measurement has a process of its own; the two engines
take turns. The cost of importing, of building the model and of the first use of lazily loaded
parts of torch is left out for both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import OUT_OF_TIME
from models import MODELS
from rich.console import Console
from rich.table import Table

ENGINES = ("tonsor", "peer")
HERE = Path(__file__).parent
Found = dict[str, Any]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=ENGINES, help="measure one engine alone")
    parser.add_argument("--timeout", type=float, default=120.0, help="CPU seconds per measurement")
    parser.add_argument("--memory-gib", type=float, default=12.0, help="address space at most")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--profile", nargs="+", choices=MODELS, help="where tonsor's time goes")
    parser.add_argument("--calls", action="store_true", help="with --profile: the worst functions")
    args = parser.parse_args()
    limits = ("--timeout", str(args.timeout), "--memory-gib", str(args.memory_gib))
    console = Console(width=None if sys.stdout.isatty() else 150)
    if args.profile:
        results = _profile(args.profile, args.repeats, limits, console)
        if args.calls:
            _worst(args.profile, limits, console)
    else:
        engines = (args.only,) if args.only else ENGINES
        results = _compare(args.models, engines, args.repeats, limits, console)
        console.print(_table(results))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        data = {"machine": _machine(), "repeats": args.repeats, "results": results}
        args.json.write_text(json.dumps(data, indent=1) + "\n")


def _measure(engine: str, model: str, options: Sequence[str]) -> Found:
    """Run one measurement in a fresh process with one thread."""
    command = [sys.executable, str(HERE / "measure.py"), engine, model, *options]
    single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **single})
    if done.returncode == OUT_OF_TIME:
        return {"failed": "out of time"}
    if done.returncode in (-signal.SIGKILL, -signal.SIGSEGV):
        return {"failed": f"ended by {signal.Signals(-done.returncode).name}"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- side by side


def _compare(
    models: Sequence[str],
    engines: Sequence[str],
    repeats: int,
    limits: Sequence[str],
    console: Console,
) -> dict[str, dict[str, Found]]:
    results: dict[str, dict[str, Found]] = {}
    for model in models:
        runs: dict[str, list[Found]] = {e: [] for e in engines}
        extra: dict[str, tuple[str, ...]] = dict.fromkeys(engines, ())
        for turn in range(repeats):
            for engine in engines if turn % 2 == 0 else tuple(reversed(engines)):
                if runs[engine] and "failed" in runs[engine][-1]:
                    continue  # it will not do better the next time
                found = _measure(engine, model, (*limits, *extra[engine]))
                if engine == "peer" and turn == 0 and _may_do_better(found):
                    local = _measure(engine, model, (*limits, "--local"))
                    if "failed" not in local and local["runs"] == "yes":
                        local["note"] = f"ranked per layer; over the model: {_fate(found)}"
                        found, extra[engine] = local, ("--local",)
                runs[engine].append(found)
        results[model] = {e: _best(r) for e, r in runs.items()}
        for engine, best in results[model].items():
            console.print(f"{model} {engine}: {_summary(best)}")
    return results


def _may_do_better(found: Found) -> bool:
    """Whether ranking within layers is worth a try: it failed otherwise, but not for time."""
    failed = found.get("failed")
    return found.get("runs") != "yes" if failed is None else failed != "out of time"


def _best(runs: list[Found]) -> Found:
    """Take the fastest, with the largest peak and the fastest proof of all."""
    best = dict(min(runs, key=lambda r: r.get("seconds", float("inf"))))
    for key, choose in (("peak_mib", max), ("peak_with_proof_mib", max), ("proof_seconds", min)):
        if values := [r[key] for r in runs if key in r]:
            best[key] = choose(values)
    best["all_seconds"] = [r["seconds"] for r in runs if "seconds" in r]
    if note := next((r["note"] for r in runs if "note" in r), None):
        best["note"] = note
    return best


def _fate(found: Found) -> str:
    """Say in a few words what came of a measurement."""
    if "failed" in found:
        return str(found["failed"])
    if found["params_after"] == found["params"]:
        return "left the model whole"
    if found["runs"] != "yes":
        return f"what it cut does not run: {found['runs']}"
    if "proof_failed" in found:
        return f"not proven: {found['proof_failed']}"
    return f"{found['params_after'] / found['params']:.0%} of the parameters"


def _summary(found: Found) -> str:
    if "seconds" not in found:
        return _fate(found)
    text = f"{found['seconds']:.2f} s, peak {found['peak_mib']:.0f} MiB"
    if "proof_seconds" in found:
        text += f", proof {found['proof_seconds']:.2f} s"
    return f"{text}; {_fate(found)}"


def _table(results: dict[str, dict[str, Found]]) -> Table:
    table = Table("model", "engine", title="trace, group, score, plan and cut at one half")
    for column in ("CPU s", "proof s", "peak/model", "with proof"):
        table.add_column(column, justify="right")
    table.add_column("result", overflow="fold")
    for model, engines in results.items():
        for engine, found in engines.items():
            size = found.get("model_mib", 1.0)
            peak, proof = found.get("peak_mib"), found.get("peak_with_proof_mib")
            note = f" ({found['note']})" if "note" in found else ""
            table.add_row(
                MODELS[model].title, engine, _number(found.get("seconds")),
                _number(found.get("proof_seconds")), _number(peak and peak / size),
                _number(proof and proof / size), _fate(found) + note,
            )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


# ---------------------------------------------------------------- where the time goes


def _profile(
    models: Sequence[str], repeats: int, limits: Sequence[str], console: Console
) -> dict[str, Found]:
    results: dict[str, Found] = {}
    for model in models:
        runs = [_measure("stages", model, limits) for _ in range(repeats)]
        good = [r for r in runs if "failed" not in r]
        if not good:
            console.print(f"{model}: {runs[0]['failed']}")
            continue
        best = results[model] = dict(good[0])
        best["seconds"] = {s: min(r["seconds"][s] for r in good) for s in good[0]["seconds"]}
    table = Table("model", title="tonsor, CPU seconds by stage")
    stages = next(iter(results.values()))["seconds"] if results else {}
    for column in ("operators", "ran", "groups", *stages, "all but proof"):
        table.add_column(column, justify="right")
    for model, found in results.items():
        total = sum(v for s, v in found["seconds"].items() if s != "proof")
        table.add_row(
            MODELS[model].title, str(found["operators"]), found["ran"],
            f"{found['prunable']}/{found['groups']}",
            *(f"{v:.2f}" for v in found["seconds"].values()), f"{total:.2f}",
        )  # fmt: skip
    console.print(table)
    return results


def _worst(models: Sequence[str], limits: Sequence[str], console: Console) -> None:
    for model in models:
        for order in ("own", "cumulative"):
            options = (*limits, "--order", order, "--no-proof")
            found = _measure("worst", model, options)
            table = Table("function", title=f"{MODELS[model].title}, by {order} CPU seconds")
            for column in ("calls", "own s", "cumulative s"):
                table.add_column(column, justify="right")
            for where, calls, own, both in found.get("worst", ()):
                table.add_row(where, f"{calls:,}", f"{own:.2f}", f"{both:.2f}")
            console.print(table if "worst" in found else f"{model}: {found['failed']}")


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    packages = ("tonsor", "torch", "torch-pruning", "transformers", "numpy")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in packages},
        "date": datetime.now(UTC).date().isoformat(),
    }


if __name__ == "__main__":
    main()
