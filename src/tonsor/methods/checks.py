"""Before the first step: whether model, anatomy, criterion and what is gone on from fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.errors import CheckpointError, ScoreError, SelectionError, TrainError
from tonsor.graph.trace import unwrap
from tonsor.methods.scoring import RoundScores


def check_same(model: nn.Module, anatomy: Anatomy) -> None:
    """Refuse an anatomy of another model, whose parameters would be masked instead."""
    if unwrap(model) is not anatomy.model:
        message = (
            f"the anatomy was made of another {type(anatomy.model).__name__}, so it would not be "
            "this model that is pruned; inspect the one that is trained"
        )
        raise SelectionError(message)


def check_live(anatomy: Anatomy) -> None:
    """Raise unless the anatomy still knows the parameters that train."""
    live = dict(anatomy.model.named_parameters(remove_duplicate=False))
    for name, tensor in anatomy.parameters.items():
        if live.get(name) is not tensor:
            message = (
                f"'{name}' is no longer the parameter that was inspected, so it could not be "
                "masked: something has replaced it, such as sharding. Inspect the model anew, and "
                "train it whole in each process."
            )
            raise TrainError(message)


def check_maskable(model: nn.Module) -> None:
    """Refuse a model that divides by the norm of a filter, which is zero once it is masked."""
    for path, module in model.named_modules():
        hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
        if "WeightNorm" in hooks or type(module).__name__ == "_WeightNorm":
            message = (
                f"'{path}' has a weight norm, which divides by the norm of a filter, and that is "
                "zero while the filter is masked; take it off first, by "
                "torch.nn.utils.remove_weight_norm or parametrize.remove_parametrizations"
            )
            raise SelectionError(message)


def check_trained(scores: RoundScores, groups: Iterable[str]) -> None:
    """Refuse to take gradients from training where a parameter of these groups is frozen."""
    frozen = next(scores.frozen(groups), None)
    if frozen is not None:
        message = (
            f"'{frozen}' does not train, so there is no gradient of it for '{scores.name}' to "
            "look at; keep=... the groups that it is in, or choose another criterion"
        )
        raise ScoreError(message)


def check_about(saved: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raise, and say what differs, unless a state was saved by a method of the same kind."""
    for what, text in now.items():
        if saved.get(what) != text:
            message = (
                f"the run was begun with {what}={saved.get(what)!r}, now it is {text!r}; go on "
                "with what it was begun with, or begin a new run in another folder"
            )
            raise CheckpointError(message)
