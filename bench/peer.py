"""Torch-Pruning as its README and examples use it, and what its result is worth."""

from __future__ import annotations

from typing import Any

import torch_pruning as tp
from torch import nn

LOCAL_ONLY: dict[str, str] = {}  # models on which ranking over the whole model raises


def cut(model: nn.Module, inputs: Any, head: str, *, everywhere: bool = True) -> None:
    """Remove half of the channels, in place; heads go whole, as in its examples for LLMs."""
    heads = _heads(model)
    pruner = tp.pruner.BasePruner(
        model, inputs, tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=everywhere, pruning_ratio=0.5, ignored_layers=[model.get_submodule(head)],
        num_heads=heads, prune_num_heads=bool(heads), prune_head_dims=not heads,
        head_pruning_ratio=0.5, output_transform=_scalar,
    )  # fmt: skip
    pruner.step()
    _mend(model, pruner.num_heads)


def _scalar(out: Any) -> Any:
    return getattr(out, "logits", out).sum()


def _projections(module: nn.Module) -> list[nn.Linear]:
    for names in (("q_proj", "k_proj", "v_proj"), ("query", "key", "value")):
        found = [getattr(module, name, None) for name in names]
        linear = [f for f in found if isinstance(f, nn.Linear)]
        if len(linear) == len(names):
            return linear
    return []


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """Say how many heads each projection holds: the user's task, by its README."""
    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        for projection in _projections(module):
            width: Any = getattr(module, "head_dim", None) or module.attention_head_size
            heads[projection] = projection.out_features // width
    return heads


def _mend(model: nn.Module, heads: dict[nn.Module, int]) -> None:
    """Set the attributes that hold sizes: the user's task too, as in its examples."""
    for module in model.modules():
        if projections := _projections(module):
            for name in ("num_attention_heads", "num_heads"):
                if hasattr(module, name):
                    setattr(module, name, heads[projections[0]])
            if hasattr(module, "all_head_size"):
                setattr(module, "all_head_size", projections[0].out_features)  # noqa: B010
