"""What a run is made of, so that a checkpoint is gone on from only by the run that wrote it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from torch import nn

from tonsor.errors import CheckpointError
from tonsor.plan_json import plan_text
from tonsor.plans import Plan
from tonsor.train.checkpoint import bytes_of, digest_of
from tonsor.train.data import Source, Splits
from tonsor.train.method import Method
from tonsor.train.recipe import Recipe


def identity(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    teacher: nn.Module | None,
    method: Method,
    plan: Plan | None,
) -> dict[str, Any]:
    """Describe all that decides what comes out of a run, as plain data."""
    return {
        "model": {
            "class": type(model).__name__,
            "tensors": {n: str(tuple(t.shape)) for n, t in _tensors(model)},
        },
        "recipe": {k: json.loads(json.dumps(v)) for k, v in asdict(recipe).items()},
        "data": {
            "name": splits.name,
            "train": _source(splits.train),
            "validation": _source(splits.validation),
            "test": _source(splits.test),
            "mean": str(splits.mean),
            "std": str(splits.std),
            "augment": str(splits.augment),
        },
        "teacher": "" if teacher is None else digest_of(_tensors(teacher)),
        "method": type(method).__name__,
        "plan": "" if plan is None else hashlib.sha256(plan_text(plan).encode()).hexdigest()[:16],
    }


def check_identity(found: dict[str, Any], wanted: dict[str, Any], folder: object) -> None:
    """Raise, and say what differs, unless a checkpoint was written by this run."""
    for part, want in wanted.items():
        got = found.get(part)
        if got == want:
            continue
        if isinstance(want, dict) and isinstance(got, dict):
            rows = _differences(got, want)
        else:
            rows = [f"{part} was {got or 'none'!r}, now it is {want or 'none'!r}"]
        shown = "\n".join(f"  {row}" for row in rows[:8])
        more = f"\n  and {len(rows) - 8} more" if len(rows) > 8 else ""
        message = (
            f"the run in '{folder}' has another {part}:\n{shown}{more}\n"
            "Go on with what it was begun with, or begin a new run in another folder."
        )
        raise CheckpointError(message)


def _differences(got: dict[str, Any], want: dict[str, Any], inside: str = "") -> list[str]:
    rows = []
    for key in {**got, **want}:
        old, new = got.get(key, "missing"), want.get(key, "missing")
        if isinstance(old, dict) and isinstance(new, dict):
            rows += _differences(old, new)
        elif old != new:
            rows.append(f"{inside}{key} was {old!r}, now it is {new!r}")
    return rows


def _tensors(model: nn.Module) -> list[tuple[str, Any]]:
    return [(n, t) for n, t in model.state_dict().items() if hasattr(t, "shape")]


def _source(source: Source) -> dict[str, str]:
    labels = hashlib.sha256(bytes_of(source.labels)).hexdigest()[:16]
    return {"images": str(len(source)), "shape": str(tuple(source.shape)), "labels": labels}
