"""Make a slim copy of a model: the user's own class, smaller tensors, mended sizes."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from tonsor.drops import Drop
from tonsor.errors import SurgeryError
from tonsor.graph.clone import clone
from tonsor.surgery.attributes import set_integer
from tonsor.surgery.dropping import drop_blocks, staying
from tonsor.surgery.fibre_layers import fibre_layers, mask_as
from tonsor.surgery.slice import copy_parameter, cut_tensor, replace_parameter
from tonsor.types import Cut


def apply_cut(model: nn.Module, cut: Cut) -> nn.Module:
    """Return a slim copy of the model; the model itself is untouched, whatever happens."""

    stays = staying(model, cut.drops)

    def replace(name: str, tensor: Tensor) -> Tensor:
        name = stays.get(id(tensor), "")
        if not name:
            return tensor  # thrown away with its block
        kept = cut.keep.get(name)
        if tensor.is_meta:
            message = (
                f"'{name}' is on the meta device and has no values to keep. Planning needs "
                "shapes only, cutting needs weights: load them, then apply the plan."
            )
            raise SurgeryError(message)
        data = tensor.detach().clone() if kept is None else cut_tensor(tensor, kept)
        new = replace_parameter(tensor, data)
        if tensor.grad is not None:
            new.grad = tensor.grad.clone() if kept is None else cut_tensor(tensor.grad, kept)
        return new

    try:
        with torch.inference_mode(False):
            slim = clone(model, replace)
            mend(slim, cut)
            drop_blocks(slim, cut.drops)
            fibre_layers(slim, cut)
    except SurgeryError:
        raise
    except Exception as error:
        message = f"{type(model).__name__} could not be cut: {type(error).__name__}: {error}"
        raise SurgeryError(message) from error
    return slim


def mask_model(model: nn.Module, cut: Cut) -> nn.Module:
    """Return a copy of the model with everything that the cut removes set to zero."""

    def replace(name: str, tensor: Tensor) -> Tensor:
        new = copy_parameter(name, tensor)
        if isinstance(tensor, nn.Parameter):
            mask_as(cut, name, new)
        return new

    masked = clone(model, replace)
    drop_blocks(masked, [_filling(d) for d in cut.drops])
    return masked


def _filling(drop: Drop) -> Drop:
    """Have zeros handed on where what follows would read fewer channels if it were cut."""
    return dataclasses.replace(drop, fit="narrow") if drop.fit == "slice" else drop


def mend(slim: nn.Module, cut: Cut) -> None:
    """Set the integer attributes that encode sizes, and refresh weights made by hooks."""
    for (module, path), value in cut.sizes.items():
        set_integer(slim.get_submodule(module), path, value)
    touched = {name.rpartition(".")[0] for name in cut.keep}
    for name in touched:
        module = slim.get_submodule(name)
        for hook in module._forward_pre_hooks.values():
            if type(hook).__name__ in ("WeightNorm", "SpectralNorm"):
                setattr(module, hook.name, _computed(hook, module))


def _computed(hook: object, module: nn.Module) -> Tensor:
    training, module.training = module.training, False
    try:
        if hasattr(hook, "n_power_iterations"):
            return hook.compute_weight(module, do_power_iteration=False).detach()  # type: ignore[attr-defined]
        return hook.compute_weight(module).detach()  # type: ignore[attr-defined]
    finally:
        module.training = training
