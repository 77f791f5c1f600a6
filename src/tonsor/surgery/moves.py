"""Carry what belongs to a model over to the slim one, and the slim one's weights back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.errors import PlanError
from tonsor.graph.clone import clone, named_tensors
from tonsor.surgery.dropping import gone, staying
from tonsor.surgery.fibre_layers import left_of, left_shape, put_back
from tonsor.surgery.slice import replace_parameter
from tonsor.types import Cut


def grown(slim: nn.Module, original: nn.Module, cut: Cut) -> nn.Module:
    """Return a model of the original's size with the slim model's weights where it has any."""
    small = dict(named_tensors(slim))
    stays = staying(original, cut.drops)

    def grow(name: str, tensor: Tensor) -> Tensor:
        name = stays.get(id(tensor), "")
        if not name:
            return replace_parameter(tensor, tensor.detach().clone())
        kept, fibres = cut.keep.get(name), cut.fibres.get(name)
        if name not in small or small[name].shape != left_shape(tensor.shape, kept, fibres):
            message = f"'{name}' of the slim model is not what this plan leaves of it"
            raise PlanError(message)
        kept = kept or (None,) * tensor.dim()
        return replace_parameter(tensor, put_back(small[name], tensor, kept, fibres))

    with torch.inference_mode(False):
        return clone(original, grow)


def move_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, slim: nn.Module, cut: Cut
) -> None:
    """Point an optimizer of a model at the slim one, with what it remembers cut alike."""
    names = {id(p): n for n, p in named_tensors(model)}
    names |= staying(model, cut.drops)
    after = dict(named_tensors(slim))
    moved: list[tuple[Tensor, Tensor, dict[str, Any] | None]] = []
    groups, lost = [], list[Tensor]()
    for group in optimizer.param_groups:
        params = []
        for old in group["params"]:
            name = names.get(id(old))
            if name is None:
                message = "the optimizer holds a parameter that is not one of this model's"
                raise PlanError(message)
            if name not in after and gone(cut.drops, name):
                lost.append(old)
                continue
            state = optimizer.state.get(old)
            left = None if state is None else {
                k: _left_of_state(name, k, v, old, cut) for k, v in state.items()
            }  # fmt: skip
            moved.append((old, after[name], left))
            params.append(after[name])
        groups.append(params)
    for group, params in zip(optimizer.param_groups, groups, strict=True):
        group["params"] = params
    for old in lost:
        optimizer.state.pop(old, None)
    for old, new, state in moved:
        optimizer.state.pop(old, None)
        if state is not None:
            optimizer.state[new] = state


def _left_of_state(name: str, key: str, value: Any, old: Tensor, cut: Cut) -> Any:
    """Take what stays of something that an optimizer remembers of a parameter."""
    untouched = name not in cut.keep and name not in cut.fibres
    if untouched or not isinstance(value, Tensor) or value.numel() == 1:
        return value
    if value.shape != old.shape:
        message = (
            f"the optimizer keeps '{key}' of shape {tuple(value.shape)} for '{name}' of shape "
            f"{tuple(old.shape)}, which can't be sliced; make a new optimizer for the slim model"
        )
        raise PlanError(message)
    return left_of(value, cut.keep.get(name), cut.fibres.get(name))


def cut_state(state: Mapping[str, Any], cut: Cut) -> dict[str, Any]:
    """Take what stays of a state dict of the original; `module.` in front of names is allowed."""
    out: dict[str, Any] = {}
    for full, value in state.items():
        name = full.removeprefix("module.")
        if gone(cut.drops, name):
            continue
        kept, fibres = cut.keep.get(name), cut.fibres.get(name)
        if isinstance(value, Tensor) and (kept or fibres):
            value = left_of(value, kept, fibres)
        out[full] = value
        if fibres is not None:
            prefix = full.removesuffix("weight")
            from_now = fibres.taking(kept)
            mask = torch.from_numpy(from_now.mask)
            out[f"{prefix}kept"] = mask.view(len(from_now.rows), *from_now.kernel)
    return out
