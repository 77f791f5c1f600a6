"""When something goes while a model trains, and how much: a schedule as text, and as numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, TypeAlias, cast, get_args

from tonsor.errors import SelectionError

Kind: TypeAlias = Literal["one-shot", "iterative", "fraction", "ramp", "soft"]

FORMS: dict[Kind, str] = {
    "one-shot": "one-shot",
    "iterative": "iterative:PIECES/EVERY[,smoothing=S]",
    "fraction": "fraction:SHARE/EVERY[,smoothing=S]",
    "ramp": "ramp:ROUNDS/EVERY[,power=P][,smoothing=S]",
    "soft": "soft:EVERY[,smoothing=S]",
}
"""How each kind of schedule is written; in brackets is what may be left out."""

_Holds: TypeAlias = Callable[[float], bool]
_COUNT: tuple[_Holds, str] = (lambda v: v >= 1 and v == int(v), "a whole number of at least 1")
_RANGES: dict[str, tuple[_Holds, str]] = {
    "every": _COUNT,
    "pieces": _COUNT,
    "rounds": _COUNT,
    "share": (lambda v: 0 < v < 1, "above 0 and below 1"),
    "power": (lambda v: v > 0, "above 0"),
    "smoothing": (lambda v: 0 <= v < 1, "at least 0 and below 1"),
}
_OPTIONS: dict[Kind, dict[str, float]] = {
    "one-shot": {},
    "iterative": {"smoothing": 0.9},
    "fraction": {"smoothing": 0.0},
    "ramp": {"power": 3.0, "smoothing": 0.0},
    "soft": {"smoothing": 0.0},
}
_AMOUNT: dict[Kind, str] = {"iterative": "pieces", "fraction": "share", "ramp": "rounds"}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a round is, in minibatches, and how much goes in it; what has no part in it is 0.

    `smoothing` is the weight of the scores of the rounds before in those of a round.
    """

    kind: Kind
    every: int = 0
    pieces: int = 0
    share: float = 0.0
    rounds: int = 0
    power: float = 0.0
    smoothing: float = 0.0

    @property
    def at_once(self) -> bool:
        """Whether there is one round only, before the first step."""
        return self.kind == "one-shot"

    def due(self, step: int) -> bool:
        """Whether a round is due after this step, counted from 0.

        >>> [step for step in range(10) if parse_schedule("soft:3").due(step)]
        [2, 5, 8]
        """
        return self.every > 0 and (step + 1) % self.every == 0

    def leaves(self, left: int) -> int:
        """How many of the pieces that are left stay in a round, where it counts in pieces.

        >>> [parse_schedule(text).leaves(9) for text in ("iterative:4/10", "fraction:0.2/10")]
        [5, 8]
        """
        share = math.floor(self.share * left + 1e-9)  # a tenth of 30 is 3, also in floating point
        return left - max(1, self.pieces or share)

    def aims(self, number: int, whole: float, goal: float) -> float:
        """The cost that a ramp aims for in a round, counted from 1, between the whole and the goal.

        >>> [parse_schedule("ramp:4/10,power=2").aims(t, 100, 20) for t in (1, 2, 3, 4, 5)]
        [65.0, 40.0, 25.0, 20.0, 20.0]
        """
        part = min(number / self.rounds, 1.0)
        return whole - (whole - goal) * (1 - (1 - part) ** self.power)

    def rounds_for(self, left: int, goal: int) -> int:
        """How many rounds take so many pieces down to a goal, if each goes as it is written.

        >>> parse_schedule("iterative:100/10").rounds_for(1024, 700)
        4
        """
        if self.kind in ("one-shot", "soft"):
            return 1
        if self.kind == "ramp":
            return self.rounds
        if self.kind == "iterative":
            return -(-max(0, left - goal) // self.pieces)
        count = 0
        while left > goal:
            left, count = self.leaves(left), count + 1
        return count

    def __str__(self) -> str:
        amount = f"{_plain(getattr(self, _AMOUNT[self.kind]))}/" if self.kind in _AMOUNT else ""
        text = self.kind if self.at_once else f"{self.kind}:{amount}{self.every}"
        for name, default in _OPTIONS[self.kind].items():
            value: float = getattr(self, name)
            text += f",{name}={_plain(value)}" if value != default else ""
        return text


def parse_schedule(text: object) -> Schedule:
    """Read a schedule such as `iterative:100/10` or `ramp:20/100,power=3`; numbers are minibatches.

    - `one-shot`: everything at once, before the first step.
    - `iterative:100/10`: 100 pieces each 10 minibatches, until the budget is met.
    - `fraction:0.2/30`: a fifth of the pieces that are left, each 30, until the budget is met.
    - `ramp:20/100`: to the budget in 20 rounds, first in large steps, then in small ones.
    - `soft:79`: chosen from scratch each 79, and only set to zero, so that it may come back.

    >>> parse_schedule("ramp:20/100")
    Schedule(kind='ramp', every=100, pieces=0, share=0.0, rounds=20, power=3.0, smoothing=0.0)
    """
    if isinstance(text, Schedule):
        return text
    if not isinstance(text, str):
        message = f"a schedule is text such as 'iterative:100/10', got {text!r}"
        raise SelectionError(message)
    head, *options = (part.strip() for part in text.split(","))
    name, _, numbers = head.partition(":")
    if name not in get_args(Kind):
        close = get_close_matches(name, FORMS, n=1)
        hint = (
            f"did you mean '{FORMS[cast(Kind, close[0])]}'?"
            if close
            else f"there are {_all_forms()}"
        )
        message = f"no schedule is called '{name}'; {hint}"
        raise SelectionError(message)
    kind = cast(Kind, name)
    names = [n for n in (_AMOUNT.get(kind), None if kind == "one-shot" else "every") if n]
    given = numbers.split("/") if numbers else []
    if len(given) != len(names):
        message = f"can't read the schedule '{text}': write it as {FORMS[kind]}"
        raise SelectionError(message)
    values = dict(_OPTIONS[kind])
    values |= {n: _number(text, n, g) for n, g in zip(names, given, strict=True)}
    for option in options:
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in _OPTIONS[kind]:
            known = ", ".join(f"{n}={v:g}" for n, v in _OPTIONS[kind].items()) or "none"
            message = f"'{option}' is no option of the schedule '{kind}'; it has {known}"
            raise SelectionError(message)
        values[key] = _number(text, key, value)
    counts: dict[str, int] = {k: int(v) for k, v in values.items() if _RANGES[k] is _COUNT}
    return replace(Schedule(kind), **{**values, **counts})


def _number(text: str, name: str, given: str) -> float:
    holds, words = _RANGES[name]
    try:
        value = float(given)
        fits = math.isfinite(value) and holds(value)
    except ValueError:
        fits, value = False, 0.0
    if not fits:
        message = f"{name} of the schedule '{text}' must be {words}, got '{given.strip()}'"
        raise SelectionError(message)
    return value


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _all_forms() -> str:
    return ", ".join(f"'{form}'" for form in FORMS.values())
