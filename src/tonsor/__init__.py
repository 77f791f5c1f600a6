"""tonsor: structured pruning for any PyTorch model, with proof.

>>> import torch, tonsor
>>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
>>> slim, report = tonsor.prune(net, torch.randn(2, 8), budget="params=50%")

Names are loaded when first used, so that importing tonsor does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tonsor._version import __version__

if TYPE_CHECKING:
    from tonsor import zoo as zoo
    from tonsor.anatomy import Anatomy, inspect
    from tonsor.api import (
        Report,
        apply,
        blocks,
        prune,
        prune_blocks,
        prune_columns,
        prune_stripes,
    )
    from tonsor.artifact import load, save
    from tonsor.axes.registry import rule
    from tonsor.cost.bench import Bench
    from tonsor.cost.latency import measure
    from tonsor.criteria.blocks.score import BlockScores, score_blocks
    from tonsor.criteria.registry import criterion
    from tonsor.criteria.score import Scores, score
    from tonsor.deploy import deploy
    from tonsor.errors import TonsorError
    from tonsor.graph.inputs import Inputs
    from tonsor.graph.trace import trace
    from tonsor.plan_json import load_plan, save_plan
    from tonsor.plans import Plan
    from tonsor.select.block_plan import plan_blocks
    from tonsor.select.budget import Budget, latency, macs, params
    from tonsor.select.fibres.execution import fastest
    from tonsor.select.fibres.make import plan_columns, plan_stripes
    from tonsor.select.make import plan as plan

_HOMES = {
    "Anatomy": "anatomy", "inspect": "anatomy", "Report": "api", "apply": "api", "prune": "api",
    "rule": "axes.registry", "criterion": "criteria.registry", "Scores": "criteria.score",
    "score": "criteria.score", "TonsorError": "errors", "Inputs": "graph.inputs",
    "trace": "graph.trace", "Plan": "plans", "Budget": "select.budget", "macs": "select.budget",
    "params": "select.budget", "plan": "select.make", "load": "artifact", "save": "artifact",
    "load_plan": "plan_json", "save_plan": "plan_json", "blocks": "api", "prune_blocks": "api",
    "Bench": "cost.bench", "measure": "cost.latency", "latency": "select.budget",
    "BlockScores": "criteria.blocks.score", "score_blocks": "criteria.blocks.score",
    "plan_blocks": "select.block_plan", "prune_stripes": "api",
    "prune_columns": "api", "plan_columns": "select.fibres.make",
    "plan_stripes": "select.fibres.make", "fastest": "select.fibres.execution",
}  # fmt: skip
_FOLDERS = ("deploy", "zoo")

__all__ = [
    "Anatomy", "Bench", "BlockScores", "Budget", "Inputs", "Plan", "Report", "Scores",
    "TonsorError", "__version__", "apply", "blocks", "criterion", "deploy", "fastest", "inspect",
    "latency", "load", "load_plan", "macs", "measure", "params", "plan", "plan_blocks",
    "plan_columns", "plan_stripes", "prune", "prune_blocks", "prune_columns", "prune_stripes",
    "rule", "save", "save_plan", "score", "score_blocks", "trace", "zoo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"tonsor.{name}")
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'tonsor' has no attribute '{name}'"
        raise AttributeError(message)
    value = getattr(import_module(f"tonsor.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
