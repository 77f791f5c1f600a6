"""An optimizer from a recipe, with its exceptions for some parameters."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tonsor.errors import RecipeError, TrainError
from tonsor.train.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Make the optimizer that a recipe asks for, over all parameters that are not frozen.

    Each group has a `factor`, by which `set_rate` multiplies the rate for it.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    unused = {pattern for pattern, _, _ in recipe.scales}
    for name, parameter in model.named_parameters():
        factor, decay = 1.0, 1.0
        for pattern, rate_factor, decay_factor in recipe.scales:
            if fnmatchcase(name, pattern):
                factor, decay = rate_factor, decay_factor
                unused.discard(pattern)
        if parameter.ndim <= 1 and not recipe.decay_vectors:
            decay = 0.0
        if parameter.requires_grad:
            group = groups.setdefault((factor, decay), {"params": [], "factor": factor})
            group["weight_decay"] = recipe.weight_decay * decay
            group["params"].append(parameter)
    if unused:
        message = (
            f"recipe.scales: no parameter of {type(model).__name__} has a name like "
            f"'{min(unused)}'; leave that row out, or write another pattern"
        )
        raise RecipeError(message)
    if not groups:
        message = "every parameter of the model is frozen, so there is nothing to train"
        raise TrainError(message)
    listed = list(groups.values())
    match recipe.optimizer:
        case "sgd":
            return torch.optim.SGD(
                listed, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov
            )
        case "adam":
            return torch.optim.Adam(listed, lr=recipe.lr, betas=(recipe.momentum, 0.999))
        case "adamw":
            return torch.optim.AdamW(listed, lr=recipe.lr, betas=(recipe.momentum, 0.999))


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
