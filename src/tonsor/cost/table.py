"""How long the parts of a model take, each distinct part measured once."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tonsor.cost.bench import Bench
from tonsor.cost.engines.registry import Model
from tonsor.cost.latency import Timing
from tonsor.cost.rounds import LONG_MS
from tonsor.errors import SelectionError, TonsorError
from tonsor.files import replacing
from tonsor.graph.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Part:
    """Something to be timed on inputs of its own; parts of equal keys take equally long."""

    model: Model
    inputs: Inputs
    key: str


@dataclass(frozen=True)
class PartTable(Mapping[str, Timing]):
    """Timings of parts by name; `measured` of them were timed for it, the others known before."""

    timings: Mapping[str, Timing]
    conditions: str
    measured: int

    def __getitem__(self, name: str) -> Timing:
        found = self.timings.get(name)
        if found is None:
            message = f"no part is called '{name}'; there are {', '.join(self.timings)}"
            raise SelectionError(message)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self.timings

    def __iter__(self) -> Iterator[str]:
        return iter(self.timings)

    def __len__(self) -> int:
        return len(self.timings)

    def __str__(self) -> str:
        width = max((len(n) for n in self), default=0)
        lines = [f"{len(self)} parts, {self.measured} distinct ones measured: {self.conditions}"]
        return "\n".join([*lines, *(f"  {n:<{width}}  {t}" for n, t in self.items())])


def prediction_error(predicted_ms: float, measured_ms: float) -> float:
    """How far off a prediction is, as a fraction of what was measured; below 0 it is too low.

    >>> prediction_error(9.0, 10.0)
    -0.1
    """
    return (predicted_ms - measured_ms) / measured_ms


@dataclass
class Memory:
    """Timings that are known already, in a JSON file if there is a `path`.

    They hold on this machine only, and for the version of torch that they were measured with.
    """

    path: Path | None = None
    known: dict[str, Timing] = field(default_factory=dict)

    def read(self) -> Memory:
        """Add what the file holds."""
        if self.path is None or not self.path.exists():
            return self
        try:
            rows = json.loads(self.path.read_text("utf-8"))["timings"]
            self.known |= {k: Timing(*map(float, v)) for k, v in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = (
                f"'{self.path}' holds no timings ({type(error).__name__}: {error}); "
                "delete it, and they are measured again"
            )
            raise TonsorError(message) from None
        return self

    def write(self) -> None:
        """Write all to the file, whole or not at all."""
        if self.path is None:
            return
        rows = {k: [t.median_ms, t.low_ms, t.high_ms] for k, t in sorted(self.known.items())}
        with replacing(self.path) as part:
            part.write_text(json.dumps({"timings": rows}, indent=1) + "\n", "utf-8")


def time_parts(
    parts: Mapping[str, Part],
    bench: Bench,
    *,
    memory: Memory | None = None,
    quiet: bool = False,
) -> PartTable:
    """Time parts exactly as models are timed, all distinct ones in turns.

    What is in `memory` is not measured again, and what is measured goes there. Samples are long,
    for what is summed up must have its share of every interruption.
    """
    if not parts:
        message = "there are no parts to time"
        raise TonsorError(message)
    memory = (memory or Memory()).read()
    names = {name: _known_as(part, bench) for name, part in parts.items()}
    missing = {k: parts[n] for n, k in names.items() if k not in memory.known}
    conditions = ""
    if missing:
        ready = {k: bench.ready(part.model, part.inputs) for k, part in missing.items()}
        about = "" if quiet else f"timing {len(missing)} parts"
        found = bench.measure(ready, sample_ms=LONG_MS, about=about)
        memory.known |= {k: found[k] for k in missing}
        memory.write()
        conditions = found.conditions
    return PartTable(
        {name: memory.known[k] for name, k in names.items()},
        conditions or f"{bench.engine}, all known from before",
        len(missing),
    )


def _known_as(part: Part, bench: Bench) -> str:
    """Everything that a timing depends on, as one key."""
    x = next((t for _, t in part.inputs.tensors()), torch.empty(0))
    device = torch.device(bench.device) if bench.device is not None else x.device
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    threads = torch.get_num_threads() if bench.threads is None else bench.threads
    where = f"{bench.engine}, {threads} threads, {device}, {x.dtype}, {machine}"
    digest = hashlib.sha256(f"{where}, torch {torch.__version__}".encode()).hexdigest()[:12]
    return f"{part.key}-{digest}"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    named = [line for line in text.splitlines() if line.startswith("model name")]
    return f"{platform.machine()} {named[0] if named else ''}"
