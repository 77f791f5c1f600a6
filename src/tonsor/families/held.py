"""Where a model holds its modules, beside as modules of modules."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

from torch import nn

_DEPTH = 6


def beside_modules(model: nn.Module) -> Mapping[int, str]:
    """Name the attribute that holds a module in a list, a method or the like, by the module's `id`.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> net.table = {"first": net[0]}
    >>> beside_modules(net) == {id(net[0]): "table"}
    True
    """
    found: dict[int, str] = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            for held in _modules_in(value, 0):
                found.setdefault(id(held), f"{path}.{name}".lstrip("."))
    return found


def _modules_in(value: Any, depth: int) -> Iterator[nn.Module]:
    if isinstance(value, nn.Module):
        yield value
    elif depth < _DEPTH:
        for inner in _inside(value):
            yield from _modules_in(inner, depth + 1)


def _inside(value: Any) -> Iterator[Any]:
    """Yield what a container, a method or a partial call holds."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from value
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
