"""A recipe: everything about a training run that decides what comes out of it, as one value."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tonsor.errors import RecipeError

Optimizers = Literal["sgd", "adam", "adamw"]
Schedules = Literal["step", "cosine", "triangular"]
Precision = Literal["no", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, as a value that can be printed, changed, saved, and read back equal.

    >>> recipe = Recipe(epochs=30, lr=1e-3, steps=((10, 0.1), (20, 0.1)))
    >>> recipe.but(epochs=20).epochs
    20

    `batch` counts the images of one optimizer step, over all processes and accumulated parts.
    `steps` are (epoch, factor): from that epoch on, the rate is multiplied. `scales` are (pattern,
    rate factor, decay factor) for parameters whose name fits the pattern; the last that fits
    counts. `distill` is the weight of the teacher's answers, the labels get the rest. `momentum`
    is the first beta of Adam. `accumulate` computes each batch in so many parts, which saves
    memory; a BatchNorm then sees the parts.
    """

    name: str = "custom"
    epochs: int = 160
    batch: int = 128
    optimizer: Optimizers = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_vectors: bool = True  # biases and the scales of norms decay too, as in the papers
    scales: tuple[tuple[str, float, float], ...] = ()
    schedule: Schedules = "step"
    steps: tuple[tuple[float, float], ...] = ()
    warmup: float = 0.0  # epochs
    lr_end: float = 0.0  # where a cosine ends, where a triangle begins and ends
    label_smoothing: float = 0.0
    distill: float = 0.0
    temperature: float = 4.0
    ema: float = 0.0  # decay of the moving average of the weights; 0 is without
    recalibrate: int = 0  # batches to take the statistics of BatchNorm from, before judging
    clip: float = 0.0  # largest norm of the gradients; 0 is without
    patience: int = 0  # epochs without a better validation accuracy; 0 is without
    choose: Literal["best", "last"] = "best"  # by accuracy on the validation split
    augment: bool = True
    precision: Precision = "no"
    channels_last: bool = False
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for field, kind in _kinds().items():
            value = _fitted(getattr(self, field), kind)
            if value is _WRONG:
                message = f"recipe.{field} must be {_words(kind)}, got {getattr(self, field)!r}"
                raise RecipeError(message)
            object.__setattr__(self, field, value)
        for field, (holds, words) in _RANGES.items():
            if not holds(getattr(self, field)):
                message = f"recipe.{field} must be {words}, got {getattr(self, field)!r}"
                raise RecipeError(message)
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            message = "recipe.nesterov needs optimizer='sgd' with momentum"
            raise RecipeError(message)
        if self.warmup > self.epochs:
            message = f"recipe.warmup={self.warmup} is longer than the {self.epochs} epochs"
            raise RecipeError(message)
        if self.steps and self.schedule != "step":
            message = f"recipe.steps has no meaning for schedule='{self.schedule}'"
            raise RecipeError(message)

    def but(self, **changes: Any) -> Recipe:
        """Return the same recipe with other values for some fields."""
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names)}"
                message = f"a recipe has no field '{name}'; {hint}"
                raise RecipeError(message)
        return replace(self, **changes)

    def differs(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Name the fields in which two recipes differ, with both values."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


Holds = Callable[[Any], bool]
_AT_LEAST_ONE: tuple[Holds, str] = (lambda v: v >= 1, "at least 1")
_NOT_NEGATIVE: tuple[Holds, str] = (lambda v: 0 <= v < math.inf, "0 or more")
_FRACTION: tuple[Holds, str] = (lambda v: 0 <= v < 1, "at least 0 and below 1")
_RANGES = MappingProxyType(
    {
        "epochs": _AT_LEAST_ONE,
        "batch": _AT_LEAST_ONE,
        "accumulate": _AT_LEAST_ONE,
        "lr": (lambda v: 0 < v < math.inf, "above 0"),
        "momentum": _FRACTION,
        "ema": _FRACTION,
        "label_smoothing": _FRACTION,
        "distill": (lambda v: 0 <= v <= 1, "from 0 to 1"),
        "temperature": (lambda v: 0 < v < math.inf, "above 0"),
        "seed": (lambda v: 0 <= v < 2**62, "0 or more"),
        "steps": (
            lambda v: list(v) == sorted(v) and all(e >= 0 and 0 < f < math.inf for e, f in v),
            "(epoch, factor) pairs in the order of their epochs, with factors above 0",
        ),
        **dict.fromkeys(
            ("weight_decay", "warmup", "lr_end", "recalibrate", "clip", "patience"), _NOT_NEGATIVE
        ),
    }
)


# ---------------------------------------------------------------- types, as users write them

_WRONG = object()


@cache
def _kinds() -> dict[str, Any]:
    return get_type_hints(Recipe)


def _fitted(value: Any, kind: Any) -> Any:
    """Return the value as its kind: whole numbers as floats where asked, lists as tuples."""
    if get_origin(kind) is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else _WRONG
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return _WRONG
        inner = get_args(kind)
        kinds = [inner[0]] * len(value) if inner[-1] is ... else list(inner)
        if len(kinds) != len(value):
            return _WRONG
        fitted = tuple(_fitted(v, k) for v, k in zip(value, kinds, strict=True))
        return _WRONG if any(v is _WRONG for v in fitted) else fitted
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is kind else _WRONG


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        rows = get_args(kind)[0]
        return f"rows of ({', '.join(k.__name__ for k in get_args(rows))})"
    return {
        bool: "True or False", int: "a whole number", float: "a number", str: "a text",
    }[kind]  # fmt: skip
