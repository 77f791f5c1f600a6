"""One file for a slim model: its weights, and the plan that says what they are.

The file is an ordinary safetensors file with the plan in its metadata. No pickle is written
or read; the class comes from the user, who makes the original model to load into.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tonsor.errors import PlanError
from tonsor.files import replacing
from tonsor.graph.clone import clone, named_tensors
from tonsor.graph.trace import unwrap
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan
from tonsor.surgery.apply import mend
from tonsor.surgery.dropping import drop_blocks, gone, staying
from tonsor.surgery.fibre_conv import FibreConv
from tonsor.surgery.fibre_layers import fibre_layers, left_shape
from tonsor.surgery.fibre_tensors import write_fibres_
from tonsor.surgery.slice import cut_tensor, replace_parameter
from tonsor.types import Cut

VERSION = "1"


def save(path: str | Path, slim: nn.Module, plan: Plan) -> None:
    """Write a slim model and its plan into one file, whole or not at all.

    What is written is what `state_dict` would hold: parameters and persistent buffers, tied
    ones once. `plan` has to lead from the original to this model; after several prunes that
    is `later.rebase(earlier)`.
    """
    slim = unwrap(slim)
    _check_fits(slim, plan)
    tensors, ties = _stored(slim)
    metadata = {
        "format": "pt",
        "tonsor": VERSION,
        "plan": json.dumps(plan_to_json(plan), separators=(",", ":"), allow_nan=False),
        "ties": json.dumps(ties),
    }
    with replacing(path) as part:
        save_file(tensors, part, metadata)


def load(path: str | Path, model: nn.Module) -> nn.Module:
    """Return the slim model of a file, of the class of `model`, the original uncut one.

    `model` is not touched. Its weights do not matter, and it may be on the meta device; what
    is loaded has the dtype and the device of `model`.
    """
    model = unwrap(model)
    with _opened(path) as (file, metadata):
        plan = _plan_in(path, metadata)
        try:
            plan.check(model)
        except PlanError as error:
            name = type(model).__name__
            message = f"'{path}' was not made from this {name}: {error}"
            raise PlanError(message) from error
        ties = json.loads(metadata.get("ties", "{}"))
        return _filled(model, plan.cut(), _Weights(path, file, ties))


def read_plan(path: str | Path) -> Plan:
    """Read the plan in a file that `save` has written; the weights are left alone."""
    with _opened(path) as (_, metadata):
        return _plan_in(path, metadata)


# ---------------------------------------------------------------- writing


def _check_fits(slim: nn.Module, plan: Plan) -> None:
    """Raise unless the plan leaves tensors of just these names and shapes."""
    cut = plan.cut()
    found = {name: tuple(tensor.shape) for name, tensor in named_tensors(slim)}
    for name, shape in plan.fingerprint.items():
        if gone(plan.drops, name):
            continue
        left = left_shape(shape, cut.keep.get(name), cut.fibres.get(name))
        if found.get(name) != left:
            message = (
                f"the plan leaves '{name}' as {left}, the model has {found.get(name, 'none')}. "
                "Save a model with the plan that made it; if it was pruned several times, with "
                "later.rebase(earlier)."
            )
            raise PlanError(message)
    for name in found.keys() - _where_fibres_go(slim):
        if name not in plan.fingerprint or gone(plan.drops, name):
            message = f"the model has a tensor '{name}' that the plan knows nothing of"
            raise PlanError(message)


def _where_fibres_go(slim: nn.Module) -> set[str]:
    """Name the buffers in which layers say which fibres they hold, of which no plan knows."""
    return {
        f"{path}.{name}"
        for path, module in slim.named_modules(remove_duplicate=False)
        if isinstance(module, FibreConv)
        for name in module._buffers
    }


def _kept_of(weight: str) -> str:
    """Name the buffer in which a layer says which fibres it holds."""
    return f"{weight.removesuffix('weight')}kept"


def _stored(slim: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return what to write, and for each further name of a tied tensor its first one."""
    for name, module in slim.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            message = (
                f"'{name}' ({type(module).__name__}) keeps extra state, for which a tonsor file "
                "has no place. Save slim.state_dict() and the plan on their own."
            )
            raise PlanError(message)
    transient = _transient(slim)
    first: dict[int, str] = {}
    storages: set[int] = set()
    tensors: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for name, tensor in named_tensors(slim):
        if name in transient:
            continue
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
            continue
        if tensor.is_meta:
            message = f"'{name}' is on the meta device and has no values to save"
            raise PlanError(message)
        first[id(tensor)] = name
        data = tensor.detach().cpu().contiguous()
        storage = data.untyped_storage().data_ptr()
        tensors[name] = data.clone() if storage in storages else data
        storages.add(storage)
    return tensors, ties


def _transient(model: nn.Module) -> set[str]:
    """Name the buffers that `state_dict` leaves out."""
    return {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    }


# ---------------------------------------------------------------- reading


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Mapping[str, str]]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if "tonsor" not in metadata:
                message = (
                    f"'{path}' is a safetensors file without a plan, so not one that tonsor.save "
                    "has written. Load it with safetensors.torch.load_model."
                )
                raise PlanError(message)
            yield file, metadata
    except SafetensorError as error:
        short = "incomplete" in str(error).lower()
        what = "was cut short; copy it again" if short else "is not a tonsor file"
        message = f"'{path}' {what} ({error})"
        raise PlanError(message) from error


def _plan_in(path: str | Path, metadata: Mapping[str, str]) -> Plan:
    if metadata["tonsor"] != VERSION:
        message = (
            f"'{path}' is a tonsor file of version {metadata['tonsor']}, and version {VERSION} "
            "can be read; update tonsor"
        )
        raise PlanError(message)
    try:
        return plan_from_json(json.loads(metadata.get("plan", "")))
    except (json.JSONDecodeError, PlanError) as error:
        message = f"'{path}' has no usable plan: {error}"
        raise PlanError(message) from error


class _Weights:
    """The tensors of an open file, by any of their names."""

    def __init__(self, path: str | Path, file: Any, ties: Mapping[str, str]) -> None:
        self.path = path
        self.file = file
        self.ties = ties
        self.names = set(file.keys())

    def canonical(self, name: str) -> str:
        """Return the name under which a tensor is in the file."""
        found = self.ties.get(name, name)
        if found not in self.names:
            message = f"'{self.path}' has no tensor '{name}', which the model needs"
            raise PlanError(message)
        return found

    def get(self, name: str) -> Tensor:
        """Read one tensor."""
        return self.file.get_tensor(self.canonical(name))


def _filled(model: nn.Module, cut: Cut, weights: _Weights) -> nn.Module:
    transient = _transient(model)
    _check_names(model, cut, weights, transient)

    stays = staying(model, cut.drops)

    def replace(name: str, tensor: Tensor) -> Tensor:
        name = stays.get(id(tensor), "")
        if not name:
            return tensor  # thrown away with its block
        kept = cut.keep.get(name)
        data = tensor.detach().clone() if kept is None else cut_tensor(tensor, kept)
        if name in cut.fibres:
            fibres = cut.fibres[name].taking(kept)
            small = data.new_empty(fibres.left, data.shape[1 - fibres.dim])
            small = _poured(name, weights.get(name), small, weights.path)
            if data.is_meta:
                data = torch.zeros(data.shape, dtype=data.dtype, device=small.device)
            write_fibres_(fibres.kind, data, small, fibres.mask)
            return replace_parameter(tensor, data)
        if name in transient:
            if tensor.is_meta:
                message = (
                    f"'{name}' is computed by the model and not in the file, and on the meta "
                    "device it has no values. Make the model on a real device to load into."
                )
                raise PlanError(message)
            return replace_parameter(tensor, data)
        return replace_parameter(tensor, _poured(name, weights.get(name), data, weights.path))

    slim = clone(model, replace)
    try:
        mend(slim, cut)
        drop_blocks(slim, cut.drops)
        fibre_layers(slim, cut)
    except (AttributeError, LookupError, TypeError) as error:
        message = (
            f"'{weights.path}' knows sizes held in attributes that this {type(model).__name__} "
            f"does not have ({type(error).__name__}: {error})"
        )
        raise PlanError(message) from error
    return slim


def _check_names(model: nn.Module, cut: Cut, weights: _Weights, transient: set[str]) -> None:
    """Raise where the file has too much, too little, or other ties than the model."""
    wanted: dict[int, str] = {}
    needed = set()
    for name, tensor in named_tensors(model):
        if name in transient or gone(cut.drops, name):
            continue
        stored = weights.canonical(name)
        needed.add(stored)
        other = wanted.setdefault(id(tensor), stored)
        if other != stored and not torch.equal(weights.get(other), weights.get(stored)):
            message = (
                f"the model ties '{name}' to '{other}', which have different values in "
                f"'{weights.path}'"
            )
            raise PlanError(message)
    needed |= {_kept_of(name) for name in cut.fibres}
    if weights.names - needed:
        extra = min(weights.names - needed)
        message = f"'{weights.path}' has a tensor '{extra}' that the model does not save"
        raise PlanError(message)


def _poured(name: str, stored: Tensor, data: Tensor, path: str | Path) -> Tensor:
    """Return the stored values in the dtype, device and memory format of `data`."""
    if stored.shape != data.shape or stored.is_floating_point() != data.is_floating_point():
        message = (
            f"'{name}' in '{path}' is {tuple(stored.shape)} of {stored.dtype}, the plan in it "
            f"leaves {tuple(data.shape)} of {data.dtype}"
        )
        raise PlanError(message)
    return stored.to(data.dtype) if data.is_meta else data.copy_(stored)
