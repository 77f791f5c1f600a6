"""Everything about a model that a tool has no business changing, taken down for comparison."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import tonsor

from .case import output_tensors

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEPTH = 5


class Snapshot:
    """Values, flags, hooks and python attributes of a model; inputs, and torch's own state."""

    def __init__(self, model: nn.Module, inputs: tonsor.Inputs) -> None:
        self.facts = dict(_facts(model, inputs))
        self.tensors = {name: t.detach().clone() for name, t in _tensors(model, inputs)}

    def changes(self, model: nn.Module, inputs: tonsor.Inputs) -> list[str]:
        """Name what is not as it was."""
        now, tensors = dict(_facts(model, inputs)), dict(_tensors(model, inputs))
        names = self.facts.keys() | now.keys()
        found = [n for n in names if n not in now or n not in self.facts or self.facts[n] != now[n]]
        for name, was in self.tensors.items():
            if name not in tensors or not _identical(was, tensors[name]):
                found.append(f"the values of {name}")
        return sorted(found)


def _identical(first: Tensor, second: Tensor) -> bool:
    first, second = first.detach(), second.detach()
    for what in (type, torch.Tensor.size, torch.Tensor.stride, lambda t: (t.dtype, t.device)):
        if what(first) != what(second):
            return False
    return first.is_meta or torch.equal(first.nan_to_num(), second.nan_to_num())


def _tensors(model: nn.Module, inputs: tonsor.Inputs) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.grad is not None:
            yield f"{name}.grad", parameter.grad
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor):
                yield f"{path}.{key}", value
    for i, tensor in enumerate(output_tensors([inputs.args, inputs.kwargs])):
        yield f"input {i}", tensor


def _facts(model: nn.Module, inputs: tonsor.Inputs) -> Iterator[tuple[str, Any]]:
    for name, tensor in _tensors(model, inputs):
        yield f"{name}.requires_grad", tensor.requires_grad
        yield f"the class of {name}", type(tensor)
        if not name.startswith("input "):
            yield f"the identity of {name}", id(tensor)
    for path, module in model.named_modules():
        yield f"the class of '{path}'", type(module)
        for key, value in vars(module).items():
            if "hooks" in key and isinstance(value, dict):
                yield f"{path}.{key}", list(value)
            elif key not in ("_parameters", "_buffers", "_modules"):
                yield from _plain(f"{path}.{key}", value)
    yield "torch's random state", torch.get_rng_state().tolist()
    yield "numpy's random state", str(np.random.get_state())
    yield "python's random state", random.getstate()
    yield "the default dtype", torch.get_default_dtype()
    yield "the gradient mode", torch.is_grad_enabled()


def _plain(path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Walk to every number and text that a module holds, in configurations and the like too."""
    if isinstance(value, _PLAIN):
        yield path, value
    elif depth == _DEPTH or isinstance(value, (Tensor, nn.Module, type)):
        return
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _plain(f"{path}[{key!r}]", item, depth + 1)
    elif isinstance(value, (tuple, list)):
        yield f"len({path})", len(value)
        for i, item in enumerate(value):
            yield from _plain(f"{path}[{i}]", item, depth + 1)
    elif hasattr(value, "__dict__") and not callable(value):
        yield from _plain(path, vars(value), depth + 1)
