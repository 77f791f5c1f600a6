"""What a run has come to, and the files that say so."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tonsor.artifact import save
from tonsor.files import replacing
from tonsor.plan_json import save_plan
from tonsor.plans import Plan
from tonsor.train.evaluate import Evaluation
from tonsor.train.tree import whole


@dataclass(frozen=True)
class Result:
    """The outcome of a run; the model that was trained has the chosen weights.

    `best` and `last` are on the validation split, `final` is of the chosen weights on the test
    split. `losses` has one value for each step, of all that was minimised. `plan` is what the
    method says is to be cut.
    """

    folder: Path
    best: Evaluation
    best_epoch: int
    chosen_epoch: int
    last: Evaluation
    final: Evaluation
    history: tuple[dict[str, Any], ...]
    losses: Tensor
    notes: tuple[str, ...]
    plan: Plan | None

    def __str__(self) -> str:
        return (
            f"test {self.final}, with the weights of epoch {self.chosen_epoch} of "
            f"{len(self.history)}, in '{self.folder}'"
        )


def judged(row: dict[str, Any]) -> Evaluation:
    """Return the evaluation in a row of the history."""
    return Evaluation(row["correct"], row["total"], row["loss"])


def write_result(result: Result, model: nn.Module, given: Plan | None) -> None:
    """Write weights, plans and numbers into the folder of the run, `result.json` at last."""
    _write_weights(result.folder / "model.safetensors", model)
    if given is not None:
        save(result.folder / "slim.tonsor", model, given)
    if result.plan is not None:
        save_plan(result.folder / "plan.json", result.plan)
    data = {
        **{name: asdict(getattr(result, name)) for name in ("best", "last", "final")},
        "accuracy": result.final.accuracy,
        "standard_error": result.final.standard_error,
        "best_epoch": result.best_epoch,
        "chosen_epoch": result.chosen_epoch,
        "history": list(result.history),
        "notes": list(result.notes),
    }
    with replacing(result.folder / "result.json") as part:
        part.write_text(json.dumps(_finite(data), indent=1, allow_nan=False) + "\n", "utf-8")


def _finite(data: Any) -> Any:
    """Return the same data with null for what is no number, which JSON does not know."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _write_weights(path: Path, model: nn.Module) -> None:
    """Write a model's state under its own names, tied tensors under each of them."""
    tensors = {
        name: whole(tensor).detach().to("cpu", copy=True).contiguous()
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    with replacing(path) as part:
        save_file(tensors, part, {"format": "pt"})
