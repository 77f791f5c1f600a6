"""How layers of stripes or columns are to run: measured, and written down in their plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from tonsor.errors import PlanError
from tonsor.graph.inputs import as_inputs
from tonsor.graph.trace import unwrap
from tonsor.plans import Plan
from tonsor.surgery.executing import Timing, time_layers
from tonsor.surgery.fibre_conv import FibreConv


def fastest(
    slim: nn.Module,
    plan: Plan,
    inputs: Any,
    *,
    rounds: int = 9,
    margin: float = 0.03,
    quiet: bool = True,
) -> tuple[Plan, tuple[Timing, ...]]:
    """Time the layers of stripes or columns of a slim model, and have each run in the faster way.

    Returns the plan with what was found in it, so that models that are cut or loaded by it run in
    the same way, and the timings. The options are those of `time_layers`.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet20", width=0.25)
    >>> slim, report = tonsor.prune_stripes(net, torch.randn(1, 3, 32, 32), budget="macs=50%")
    >>> plan, timings = fastest(slim, report.plan, torch.randn(1, 3, 32, 32), rounds=1)
    >>> {s.run for s in plan.stripes.values()} <= {"dense", "stripes"}
    True
    """
    slim = unwrap(slim)
    layers = _layers(slim, plan)
    given = as_inputs(inputs)
    timings = time_layers(slim, given, rounds=rounds, margin=margin, quiet=quiet)
    fibres = {
        weight: replace(found, run=layers[weight].run) if weight in layers else found
        for weight, found in plan.fibres.items()
    }
    reached = {id(slim.get_submodule(t.name)) for t in timings}
    unreached = [
        weight.rpartition(".")[0]
        for weight, layer in layers.items() if layer.groups == 1 and id(layer) not in reached
    ]  # fmt: skip
    execution: dict[str, Any] = {
        "conditions": _conditions(slim, given.tensors(), rounds),
        "layers": {t.name: [round(t.dense_ms, 4), round(t.fibres_ms, 4)] for t in timings},
    }
    if unreached:
        execution["not reached"] = unreached
    made_by = {**plan.made_by, "execution": execution}
    return replace(plan, fibres=fibres, made_by=made_by), timings


def _layers(slim: nn.Module, plan: Plan) -> dict[str, FibreConv]:
    """Find the layers of a plan by their weights, or say what does not belong together."""
    cut = plan.cut()
    model: Any = slim
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, FibreConv] = {}
    for weight, fibres in cut.fibres.items():
        path = weight.rpartition(".")[0]
        layer = modules.get(path)
        left = fibres.taking(cut.keep.get(weight)).mask
        if not isinstance(layer, FibreConv):
            what = "has no such layer" if layer is None else f"has a {type(layer).__name__} there"
            message = f"the plan keeps {fibres.kind} of '{path}', the model {what}; {_HINT}"
            raise PlanError(message)
        kept = layer.kept.detach().cpu().numpy().reshape(len(layer.kept), -1)
        if layer.kind != fibres.kind or not np.array_equal(kept, left):
            message = (
                f"'{path}' has {int(kept.sum())} {layer.kind} of {kept.size}, and the plan keeps "
                f"{int(left.sum())} of {left.size}, or others; {_HINT}"
            )
            raise PlanError(message)
        found[weight] = layer
    known = {id(layer) for layer in found.values()}
    for path, module in modules.items():
        if isinstance(module, FibreConv) and id(module) not in known:
            message = (
                f"'{path}' is a layer of {module.kind} of which the plan knows nothing; {_HINT}"
            )
            raise PlanError(message)
    return found


_HINT = "give the plan that the model was cut by, and the slim model that it made"


def _conditions(slim: nn.Module, tensors: list[tuple[str, torch.Tensor]], rounds: int) -> str:
    """Say what has to stand beside the numbers."""
    x = next((t for _, t in tensors), torch.empty(0))
    weight = next(slim.parameters(), x)
    threads = torch.get_num_threads()
    kind = str(weight.dtype).removeprefix("torch.")
    batch = x.shape[0] if x.dim() else 1
    return (
        f"eager, {weight.device}, {kind}, batch {batch}, {threads} "
        f"thread{'s' if threads != 1 else ''}, torch {torch.__version__}, medians of {rounds} "
        "rounds in turns"
    )
