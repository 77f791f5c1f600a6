"""The table of criteria: a name, what it has to see, and the function that scores.

What a criterion is handed, pieces always in front, and what it returns, one number a piece:

| needs | arguments |
|---|---|
| `weights` | `weight[piece, ...]` |
| `kernels` | `kernel[piece, other, height, width]`, and the `Geometry` it is used with |
| `scales` | `scale[piece, ...]` of a BatchNorm |
| `scale_gradients` | `scale, gradient, shift, gradient` of a BatchNorm, for each minibatch |
| `gradients` | `weight, gradient`, for each minibatch |
| `squares` | `weight`, mean over samples of the squared gradient |
| `curvature` | `weight`, diagonal of the Hessian |
| `maps` | `map[piece, sample, ...]`, for each minibatch |
| `map_gradients` | `map`, gradient of the loss of each sample, for each minibatch |

Scores of minibatches are averaged, each counting for its number of samples. A criterion returns
`NotImplemented` where what it is shown says nothing. Complex weights are shown as pairs of real
numbers, but to `weights`, which gets them as they are. Keyword arguments are options, given as
`name:option=value`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from torch import Tensor

from tonsor.errors import ScoreError, SelectionError

Needs = Literal[
    "weights", "kernels", "scales", "scale_gradients", "gradients", "squares", "curvature",
    "maps", "map_gradients",
]  # fmt: skip
Where = Literal["made", "read"]
DATA: tuple[Needs, ...] = (
    "scale_gradients", "gradients", "squares", "curvature", "maps", "map_gradients",
)  # fmt: skip
BACKWARD: tuple[Needs, ...] = tuple(n for n in DATA if n != "maps")

Criterion = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Registered:
    """A criterion with its name, and the options that were asked for.

    `reads_weights` is False where values do not matter. `where` says which feature maps are
    looked at: as they are made (after the norm, before the activation) or as they are read by
    the next weights. `unit` divides what comes from each place by its Euclidean norm. `at_once`
    is the same function for many weights of one size, if there is one: see `at_once`.
    """

    name: str
    function: Criterion
    needs: Needs = "weights"
    where: Where = "made"
    unit: bool = False
    reads_weights: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    at_once: Criterion | None = None

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.function.__doc__ or "").strip().split("\n")[0]

    @property
    def choices(self) -> Mapping[str, inspect.Parameter]:
        """Its options with their defaults."""
        return choices(self.function)

    @property
    def reads_data(self) -> bool:
        """Whether it has to see data."""
        return self.needs in DATA

    def __call__(self, *seen: Any) -> Tensor:
        """Score what is shown, with the options that were asked for."""
        found = self.function(*seen, **self.options)
        if found is NotImplemented or (
            isinstance(found, Tensor) and found.shape == seen[0].shape[:1]
        ):
            return found
        got = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else found
        message = f"'{self.name}' must give one number for each of {len(seen[0])} pieces, not {got}"
        raise ScoreError(message)

    def __str__(self) -> str:
        given = ",".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.name}:{given}" if given else self.name


CRITERIA: dict[str, Registered] = {}


def criterion(
    name: str,
    *,
    needs: Needs = "weights",
    where: Where = "made",
    unit: bool = False,
    reads_weights: bool = True,
) -> Callable[[Criterion], Criterion]:
    """Register a criterion under a name.

    >>> @criterion("peak")
    ... def peak(weight):
    ...     "The largest weight of a piece."
    ...     return weight.abs().amax(dim=tuple(range(1, weight.dim())))
    """

    def register(function: Criterion) -> Criterion:
        if name in CRITERIA:
            message = f"a criterion named '{name}' exists already"
            raise ValueError(message)
        if needs == "map_gradients" and where == "read":
            message = f"'{name}' can't have where='read': gradients are of maps as they are made"
            raise ValueError(message)
        CRITERIA[name] = Registered(name, function, needs, where, unit, reads_weights)
        return function

    return register


def at_once(name: str) -> Callable[[Criterion], Criterion]:
    """Give a criterion of weights a second function, which scores many of one size at once.

    It is handed `weight[place, piece, :]` and returns `[place, piece]`; its options are the same.
    """

    def register(function: Criterion) -> Criterion:
        CRITERIA[name] = replace(CRITERIA[name], at_once=function)
        return function

    return register


def find_criterion(by: object) -> Registered:
    """Read a criterion such as `l2` or `lp:p=3`, or say which names come close.

    >>> find_criterion("lp:p=3").options
    {'p': 3.0}
    """
    if not isinstance(by, str):
        message = f"a criterion is given by name or as Scores, got {by!r}"
        raise SelectionError(message)
    name, _, given = by.partition(":")
    if name not in CRITERIA:
        close = get_close_matches(name, CRITERIA, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(CRITERIA)}"
        message = f"no criterion is called '{name}'; {hint}"
        raise SelectionError(message)
    found = CRITERIA[name]
    return replace(found, options=read_options(name, found.function, given))


def choices(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the options of a function, which are its keyword arguments, with their defaults."""
    found = inspect.signature(function).parameters
    return {n: p for n, p in found.items() if p.kind is p.KEYWORD_ONLY}


def read_options(name: str, function: Callable[..., Any], given: str) -> dict[str, Any]:
    """Read the options of a function from a text such as `p=3`; `name` is what it is called."""
    return dict(_option(name, function, item) for item in given.split(",")) if given else {}


def _option(owner: str, function: Callable[..., Any], item: str) -> tuple[str, Any]:
    name, equals, text = (part.strip() for part in item.partition("="))
    known = choices(function)
    if name not in known or not equals:
        each = ", ".join(f"{n}={p.default}" for n, p in known.items())
        rest = f"it has {each}" if each else "it has none"
        message = f"'{item}' is no option of '{owner}'; {rest}"
        raise SelectionError(message)
    kind = get_type_hints(function)[name]
    if words := get_args(kind):
        if text in words:
            return name, text
        message = f"'{name}' of '{owner}' must be one of {', '.join(words)}, got '{text}'"
        raise SelectionError(message)
    if kind is bool and text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    try:
        return name, _number(kind, text)
    except ValueError:
        message = f"'{name}' of '{owner}' is of type {kind.__name__}, got '{text}'"
        raise SelectionError(message) from None


def _number(kind: type, text: str) -> Any:
    if kind not in (int, float):
        raise ValueError
    return kind(text)
