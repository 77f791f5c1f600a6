"""Copy a model with other tensors in it, leaving the model itself alone.

Tracing runs on such a copy (with fake or shared tensors), surgery fills one with smaller
tensors. Python state is copied, so whatever a forward pass writes stays in the copy.
"""

from __future__ import annotations

import copy
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import _disable_current_modes

Replace = Callable[[str, Tensor], Tensor]

_ATOMIC = (
    int, float, complex, bool, str, bytes, type, types.NoneType, types.FunctionType,
    types.BuiltinFunctionType, types.ModuleType, torch.dtype, torch.device, torch.Size, range,
)  # fmt: skip
_DICTS = (dict, OrderedDict)
_DEPTH = 6
_GETSTATE = (object.__getstate__, getattr(nn.Module, "__getstate__", object.__getstate__))
_NOT_COPIED = ("_compiled_call_impl",)


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter and buffer under every name it has."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def clone(model: nn.Module, replace: Replace, opaque: dict[int, Any] | None = None) -> nn.Module:
    """Copy `model`, with `replace(name, tensor)` in the place of each parameter and buffer.

    Ties stay ties: a tensor that has several names is replaced once. Clones that are thrown
    away may share, through `opaque`, their copies of objects that hold no part of the model,
    such as a configuration.
    """
    memo: dict[int, Any] = {}
    alive: list[Any] = []
    for name, tensor in named_tensors(model):
        if id(tensor) not in memo:
            memo[id(tensor)] = replace(name, tensor)
            alive.append(tensor)
    plain = [m for m in model.modules() if _is_plain(m)]
    for module in plain:
        memo[id(module)] = module.__class__.__new__(module.__class__)
    with _disable_current_modes():  # what is copied is real, even where the tensors are fake
        for module in plain:
            state = {
                key: _copy(value, memo, alive, opaque)
                for key, value in module.__dict__.items()
                if key not in _NOT_COPIED
            }
            memo[id(module)].__dict__.update(state)
        return _copy(model, memo, alive, opaque)


def _is_plain(module: nn.Module) -> bool:
    """Whether copying `__dict__` is all that copying this module means."""
    if parametrize.is_parametrized(module):
        return True  # its class only restates the default behaviour
    kind = type(module)
    return (
        not hasattr(kind, "__deepcopy__")
        and kind.__getstate__ in _GETSTATE
        and kind.__reduce_ex__ is object.__reduce_ex__
    )


def _copy(value: Any, memo: dict[int, Any], alive: list[Any], opaque: dict[int, Any] | None) -> Any:
    if isinstance(value, _ATOMIC):
        return value
    known = memo.get(id(value))
    if known is not None:
        return known
    if type(value) in _DICTS:
        fresh = type(value)()
        memo[id(value)] = fresh
        alive.append(value)
        fresh.update({k: _copy(v, memo, alive, opaque) for k, v in value.items()})
        return fresh
    if isinstance(value, Tensor):  # a plain attribute; it may even have a history
        memo[id(value)] = value.detach().clone()
        alive.append(value)
        return memo[id(value)]
    if opaque is not None and id(value) in opaque:
        return opaque[id(value)]
    try:
        if opaque is not None and _holds_no_part(value):
            opaque[id(value)] = copy.deepcopy(value)
            return opaque[id(value)]
        return copy.deepcopy(value, memo)
    except Exception:  # locks, handles, generators: share what can't be copied
        if isinstance(value, nn.Module):
            raise  # sharing a part of the model would let a run write into it
        memo[id(value)] = value
        return value


def _holds_no_part(value: Any, depth: int = 0) -> bool:
    """Whether an object, seen all through, holds no module, no tensor and no method."""
    if isinstance(value, _ATOMIC):
        return not isinstance(value, types.FunctionType)
    if depth > _DEPTH or isinstance(value, (nn.Module, Tensor)):
        return False
    if isinstance(value, dict):
        return all(_holds_no_part(v, depth + 1) for v in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_holds_no_part(v, depth + 1) for v in value)
    return hasattr(value, "__dict__") and _holds_no_part(vars(value), depth + 1)
