"""Empty the function caches of a model's code around a run.

A function under `functools.lru_cache` that makes a tensor would give the tensors of one run,
fake ones or those of another precision, to the next. The caches hold nothing that can't be
computed again, so they are emptied before and after.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import CellType, FunctionType
from typing import Any

from torch import nn

_CACHE = type(lru_cache(lambda: None))
_EMPTY = CellType()
_PLAIN = frozenset({bool, dict, float, int, list, OrderedDict, set, str, tuple, type(None)})


@contextmanager
def forgetting(model: nn.Module) -> Iterator[None]:
    """Empty the caches that the model's modules can see, now and at the end."""
    caches = list(_caches(model))
    _clear(caches)
    try:
        yield
    finally:
        _clear(caches)


def _clear(caches: list[Any]) -> None:
    for cache in caches:
        cache.cache_clear()


def _caches(model: nn.Module) -> Iterator[Any]:
    classes = {base for module in model.modules() for base in type(module).__mro__}
    homes = {c.__module__ for c in classes if not c.__module__.startswith(("torch.", "builtins"))}
    for home in homes:
        module = sys.modules.get(home)
        yield from _cached_in(vars(module) if module is not None else {})
    for module in model.modules():
        yield from _cached_in(vars(module))
    for kind in classes:
        if kind.__module__ in homes:
            yield from _cached_in(vars(kind))


def _cached_in(names: Any) -> Iterator[Any]:
    for value in list(names.values()):
        if type(value) in _PLAIN:
            continue
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        if isinstance(value, _CACHE):
            yield value
        elif isinstance(value, FunctionType):  # a cache may hide in what a decorator closed over
            for cell in value.__closure__ or ():
                if cell != _EMPTY and isinstance(cell.cell_contents, _CACHE):
                    yield cell.cell_contents
