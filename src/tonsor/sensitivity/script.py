"""The script of a model: every operator of one run, in order.

Two runs that follow the same script up to some operator, on the same inputs and with the same
weights, have computed the same up to there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


@dataclass(frozen=True, slots=True)
class Same:
    """What an operator returns is the very tensor that it was given in this place."""

    place: int


@dataclass(frozen=True, slots=True)
class Line:
    """One operator: what is called, all that is no tensor in its arguments, and what it returns.

    `is_new` is said of operators that make a tensor of nothing but its size, such as `zeros`.
    """

    func: Any
    given: tuple[Any, ...]
    result: Any
    is_view: bool
    is_new: bool

    def fits(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this operator is called here, with the same arguments and shapes."""
        return func is self.func and self.given == plain(args, kwargs)


@dataclass(frozen=True, eq=False)
class Script:
    """The operators of a run, and between which of them each tensor is needed.

    Tensors have numbers: `made` says which operator makes each, `last` which is the last to read
    it, and `first` which is the first to read a parameter or buffer. `blanks` stand in for tensors
    that nobody reads any more. `until` is the first operator that can't be left out, for it draws
    random numbers or writes into the model.
    """

    lines: tuple[Line, ...]
    made: Mapping[int, int]
    last: Mapping[int, float]
    first: Mapping[str, int]
    inputs: tuple[int, ...]
    blanks: Mapping[int, FakeTensor]
    until: int

    def start_of(self, tensors: Iterable[str]) -> int:
        """Return the first operator that reads one of these parameters and buffers."""
        found = [self.first[name] for name in tensors if name in self.first]
        return min([*found, self.until, len(self.lines) - 1])

    def live(self, at: int) -> frozenset[int]:
        """Return the tensors that are made before an operator, and read by it or later ones."""
        return frozenset(v for v, made in self.made.items() if made < at <= self.last.get(v, -1))

    def blank(self, value: int, *, anew: bool) -> Tensor:
        """Return a tensor of the right shape and no values, which fails whoever reads it."""
        blank = self.blanks[value]
        if not anew:
            return blank
        empty = torch.empty_strided(blank.shape, blank.stride(), dtype=blank.dtype, device="meta")
        return FakeTensor(blank.fake_mode, empty, blank.fake_device)


def plain(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return arguments with the shape of a tensor in the tensor's place."""
    found = tuple(_plain(value) for value in args)
    return (*found, *((k, _plain(v)) for k, v in kwargs.items())) if kwargs else found


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape
    return tuple(_plain(v) for v in value) if isinstance(value, (list, tuple)) else value
