"""Example inputs in any shape a forward takes, and the tensors inside any object."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

_DEPTH = 8


class Inputs:
    """Positional and keyword inputs of one forward pass.

    >>> Inputs(1, mask=2).kwargs
    {'mask': 2}
    """

    __slots__ = ("args", "kwargs")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs

    def __repr__(self) -> str:
        parts = [_brief(a) for a in self.args]
        parts += [f"{k}={_brief(v)}" for k, v in self.kwargs.items()]
        return f"Inputs({', '.join(parts)})"

    def map(self, change: Callable[[Tensor], Any]) -> Inputs:
        """Copy the inputs with every tensor changed; whatever holds them is copied too."""
        memo: dict[int, Any] = {id(t): change(t) for _, t in self.tensors()}
        args, kwargs = copy.deepcopy((self.args, self.kwargs), memo)
        return Inputs(*args, **kwargs)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """Every tensor among the inputs with the path that leads to it."""
        found = [t for i, a in enumerate(self.args) for t in tensors_in(a, str(i))]
        return found + [t for k, v in self.kwargs.items() for t in tensors_in(v, k)]

    def call(self, model: nn.Module) -> Any:
        """Run the model on these inputs."""
        return model(*self.args, **self.kwargs)


def _brief(value: Any) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:40]


def as_inputs(inputs: Any) -> Inputs:
    """Read a tensor, a tuple of positionals, a mapping of keywords, or `Inputs`."""
    if isinstance(inputs, Inputs):
        return inputs
    if isinstance(inputs, Mapping) or hasattr(inputs, "keys"):
        return Inputs(**{str(k): inputs[k] for k in inputs.keys()})  # noqa: SIM118 UserDict too
    if isinstance(inputs, (tuple, list)):
        return Inputs(*inputs)
    return Inputs(inputs)


def tensors_in(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors inside any nest of containers, dataclasses and plain objects."""
    if isinstance(value, Tensor):
        yield path, value
    elif depth > _DEPTH or isinstance(value, (str, bytes, nn.Module, type)):
        return
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors_in(item, _join(path, key), depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for i, item in enumerate(value):
            yield from tensors_in(item, _join(path, i), depth + 1)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(
                getattr(value, field.name, None), _join(path, field.name), depth + 1
            )
    elif hasattr(value, "__dict__"):
        for key, item in vars(value).items():
            yield from tensors_in(item, _join(path, key), depth + 1)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
