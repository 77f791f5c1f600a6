"""The table of criteria: name to the function that scores the pieces of one weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from torch import Tensor

from tonsor.errors import SelectionError

# From a view `[piece, ...]` of one weight to one number for each piece.
Criterion = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Registered:
    """A criterion with its name; `reads_weights` is False where values do not matter."""

    name: str
    function: Criterion
    reads_weights: bool = True

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]


CRITERIA: dict[str, Registered] = {}


def criterion(name: str, *, reads_weights: bool = True) -> Callable[[Criterion], Criterion]:
    """Register a criterion under a name.

    >>> @criterion("peak")
    ... def peak(view):
    ...     "The largest weight of a piece."
    ...     return view.abs().amax(dim=tuple(range(1, view.dim())))
    """

    def register(function: Criterion) -> Criterion:
        if name in CRITERIA:
            message = f"a criterion named '{name}' exists already"
            raise ValueError(message)
        CRITERIA[name] = Registered(name, function, reads_weights)
        return function

    return register


def find_criterion(name: object) -> Registered:
    """Return the criterion of a name, or say which come close."""
    if not isinstance(name, str):
        message = f"a criterion is given by name or as Scores, got {name!r}"
        raise SelectionError(message)
    if name not in CRITERIA:
        close = get_close_matches(name, CRITERIA, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(CRITERIA)}"
        message = f"no criterion is called '{name}'; {hint}"
        raise SelectionError(message)
    return CRITERIA[name]
