"""Empty the function caches of a model's code around a run.

A function under `functools.lru_cache` that makes a tensor would give the tensors of one run,
fake ones or those of another precision, to the next. The caches hold nothing that can't be
computed again, so they are emptied before and after.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


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
        if type(value).__name__ == "_lru_cache_wrapper":
            yield value
