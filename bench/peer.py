"""Torch-Pruning as its README and examples use it, and what its result is worth."""

from __future__ import annotations

from typing import Any

import torch_pruning as tp
from torch import nn


def cut(model: nn.Module, inputs: Any, head: str, *, everywhere: bool = True) -> None:
    """Remove half of the channels, in place; heads go whole, as in its examples for LLMs."""
    heads = _heads(model)
    pruner = tp.pruner.BasePruner(
        model, inputs, tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=everywhere, pruning_ratio=0.5, ignored_layers=[model.get_submodule(head)],
        num_heads=heads, prune_num_heads=bool(heads), prune_head_dims=not heads,
        head_pruning_ratio=0.5, output_transform=_scalar, **_merging(model),
    )  # fmt: skip
    pruner.step()
    _mend(model, pruner.num_heads)


class MergingPruner(tp.BasePruningFunc):
    """How to prune Swin's merging of patches, which its example has the user write."""

    def prune_out_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
        tp.prune_linear_out_channels(layer.reduction, idxs)
        return layer

    def prune_in_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
        width = self.get_in_channels(layer)
        everywhere = [i + corner * width for corner in range(4) for i in idxs]
        tp.prune_linear_in_channels(layer.reduction, everywhere)
        tp.prune_layernorm_out_channels(layer.norm, everywhere)
        return layer

    def get_out_channels(self, layer: Any) -> int:
        return layer.reduction.out_features

    def get_in_channels(self, layer: Any) -> int:
        return layer.reduction.in_features // 4


def _merging(model: nn.Module) -> dict[str, Any]:
    kinds = {type(m) for m in model.modules() if type(m).__name__ == "SwinPatchMerging"}
    if not kinds:
        return {}
    return {
        "customized_pruners": {kind: MergingPruner() for kind in kinds},
        "root_module_types": [nn.Linear, nn.LayerNorm, *kinds],
    }


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
