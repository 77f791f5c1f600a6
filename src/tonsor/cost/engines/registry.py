"""The table of engines: what each is called, what it needs, and how it takes a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tonsor.errors import SelectionError
from tonsor.graph.inputs import Inputs

Model: TypeAlias = Callable[..., Any]
"""A module, or anything else that is called as one."""

Run: TypeAlias = Callable[[], Any]
Make: TypeAlias = Callable[[Model, Inputs, int], Run]
"""From a model, its inputs and a number of threads to what runs it once."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One way to run a model.

    `missing` says why it can't be used here, or nothing. `warm_up` is the least number of runs
    before it may be timed. What an engine makes of a model is compared with torch if `checked`;
    `flat` is how it hands back what the model returns, as the tensors in it.
    """

    name: str
    make: Make
    missing: Callable[[], str]
    warm_up: int
    checked: bool
    devices: tuple[str, ...]
    flat: Callable[[Any], list[Tensor]]


_ENGINES: dict[str, Engine] = {}
ENGINES: Mapping[str, Engine] = MappingProxyType(_ENGINES)


def engine(
    name: str,
    *,
    missing: Callable[[], str],
    flat: Callable[[Any], list[Tensor]],
    warm_up: int = 3,
    checked: bool = True,
    devices: tuple[str, ...] = (),
) -> Callable[[Make], Make]:
    """Register an engine; `devices` are the only ones it runs on, where it doesn't run on all."""

    def register(make: Make) -> Make:
        if name in _ENGINES:
            message = f"an engine is called '{name}' already: {_ENGINES[name].make.__name__}"
            raise ValueError(message)
        _ENGINES[name] = Engine(name, make, missing, warm_up, checked, devices, flat)
        return make

    return register


def find_engine(name: str) -> Engine:
    """Return the engine of a name, or say which there are."""
    found = ENGINES.get(name)
    if found is None:
        close = get_close_matches(str(name), ENGINES, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(ENGINES)}"
        message = f"no engine is called '{name}'; {hint}"
        raise SelectionError(message)
    return found


@contextmanager
def using_threads(wanted: int | None) -> Iterator[int]:
    """Have torch use so many threads, and afterwards as many as before."""
    before = torch.get_num_threads()
    try:
        if wanted is not None:
            torch.set_num_threads(wanted)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
