"""What to aim for: a fraction, or an amount, of a cost that is to be kept."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fractions import Fraction

from tonsor.cost.conventions import CONVENTIONS
from tonsor.errors import BudgetError, SelectionError

_WORDS = {"macs": "macs", "params": "params", "pieces": "pieces", "kept": "pieces"}
_UNITS = {"": 1, "x": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_MEASURED = ("latency",)
_MILLISECONDS = {
    "us": Fraction(1, 1000), "µs": Fraction(1, 1000), "μs": Fraction(1, 1000),
    "ms": Fraction(1), "s": Fraction(1000),
}  # fmt: skip
_FORM = re.compile(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*(%|[kmgtx]?|[muµμ]?s)\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a cost to keep: `kept` as a fraction, or `amount` absolutely.

    The amount of a speed-up says how many times less the cost is to be, that of a latency is in
    milliseconds.
    """

    target: str
    kept: float | None = None
    amount: float | None = None

    def limit(self, whole: float) -> float:
        """Return the largest cost allowed, given the cost of the whole model.

        Of a whole number, that is the largest whole number whose share is not above `kept`.

        >>> Budget("macs", kept=0.29).limit(100), Budget("params", amount=8.0).limit(100)
        (29, 8.0)
        """
        if self.amount is not None:
            return whole / self.amount if is_speedup(self.target) else self.amount
        kept = float(self.kept or 0)
        if not isinstance(whole, int):
            return whole * kept
        above = math.floor(whole * kept) + 1  # the product is rounded, and may be just below
        return above if above / whole <= kept else above - 1

    def __str__(self) -> str:
        if self.amount is not None:
            unit = "x" if is_speedup(self.target) else "ms" if is_measured(self.target) else ""
            return f"{self.target}={self.amount:.15g}{unit}"
        return f"{self.target}={100 * (self.kept or 0):.10g}%"


def macs(kept: float) -> Budget:
    """Keep this fraction of the multiply-accumulates."""
    return _checked(Budget("macs", kept=kept))


def params(kept: float) -> Budget:
    """Keep this fraction of the parameters."""
    return _checked(Budget("params", kept=kept))


def latency(kept: float) -> Budget:
    """Keep this fraction of the measured time."""
    return _checked(Budget("latency", kept=kept))


def targets() -> tuple[str, ...]:
    """Name everything that can be counted: costs, pieces, and every convention of counting.

    >>> targets()[:3]
    ('macs', 'params', 'pieces')
    """
    return tuple(dict.fromkeys([*_WORDS.values(), *CONVENTIONS]))


def is_measured(target: str) -> bool:
    """Whether a target is not counted but measured, by running the models.

    >>> is_measured("latency"), is_measured("macs")
    (True, False)
    """
    return target in _MEASURED


def is_speedup(target: str) -> bool:
    """Whether a target grows as the model gets smaller.

    >>> is_speedup("spp_speedup"), is_speedup("macs")
    (True, False)
    """
    found = CONVENTIONS.get(target)
    if found is None or found.finish is None:
        return False
    return found.finish(10**9, 10**12) > found.finish(10**12, 10**12)


def as_budget(text: object) -> Budget:
    """Read a budget such as `macs=50%`, `params=1.2M` or `50% macs`; it says what is *kept*.

    `pieces` are what groups are cut into, such as channels: `pieces=60%` of all that may go. A
    speed-up is an amount: `spp_speedup=2x` is at least twofold. A latency is measured: keep a
    fraction of it, `latency=70%`, or a time with its unit, `latency=12ms`.

    >>> as_budget("macs=50%")
    Budget(target='macs', kept=0.5, amount=None)
    """
    if isinstance(text, Budget):
        return _checked(replace(text, target=_target(text.target)))
    if not isinstance(text, str):
        message = f"a budget is text such as 'macs=50%', or tonsor.macs(0.5); got {text!r}"
        raise BudgetError(message)
    name, equals, value = text.partition("=")
    if not equals:
        words = text.split()
        name, value = (words[1], words[0]) if len(words) == 2 else (text, "")
    target = _target(name)
    found = _FORM.match(value)
    if found is None or not _is_unit(found[2].lower(), target):
        raise BudgetError(_unread(text, target))
    unit = found[2].lower()
    try:
        number = Fraction(found[1])
        written = float(number * (_MILLISECONDS.get(unit) or _UNITS.get(unit, 1)))
    except (ValueError, OverflowError):
        message = f"{_unread(text, target)}; {found[1]!r} is not a number"
        raise BudgetError(message) from None
    if unit == "%":
        return _checked(Budget(target, kept=float(number / 100)))
    if unit == "" and number <= 1 and not is_speedup(target):
        return _checked(Budget(target, kept=written))
    if unit == "" and is_measured(target):
        message = f"{_unread(text, target)}; {found[1]} what? It takes a unit: us, ms or s"
        raise BudgetError(message)
    return _checked(Budget(target, amount=written))


def _is_unit(unit: str, target: str) -> bool:
    if is_measured(target):
        return unit in ("", "%", *_MILLISECONDS)
    return unit == "%" or (unit in _UNITS and (unit != "x" or is_speedup(target)))


def _target(name: str) -> str:
    name = name.strip()
    found = name if name in CONVENTIONS else _WORDS.get(name.lower(), name.lower())
    known = (*targets(), *_MEASURED)
    if found in known:
        return found
    close = get_close_matches(found, [*_WORDS, *known], n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
    message = f"no budget is called '{found}'; {hint}"
    raise SelectionError(message)


def _checked(budget: Budget) -> Budget:
    return replace(budget, **dict(_numbers(budget)))


def _numbers(budget: Budget) -> Iterator[tuple[str, float]]:
    """Yield the one number of a budget, or refuse it."""
    target, kept, amount = budget.target, budget.kept, budget.amount
    if (kept is None) == (amount is None):
        message = f"a budget of {target} is either a fraction to keep or an amount"
        raise BudgetError(message)
    if is_speedup(target):
        if amount is None or not 1 <= amount < math.inf:
            given = f"{100 * kept:g}%" if kept is not None else f"{amount:g}"
            message = (
                f"{target} says how many times faster, so it is an amount of at least 1, such as "
                f"'{target}=2x'; got {given}"
            )
            raise BudgetError(message)
        yield "amount", float(amount)
    elif kept is not None:
        if not 0 < kept <= 1:
            message = (
                f"the fraction of {target} to keep must be above 0 and at most 1, got {kept:g}"
            )
            raise BudgetError(message)
        yield "kept", float(kept)
    elif amount is not None:
        if not 0 <= amount < math.inf:
            message = (
                f"the amount of {target} to keep must be a number of at least 0, got {amount:g}"
            )
            raise BudgetError(message)
        yield "amount", float(amount)


def _unread(text: str, target: str) -> str:
    forms = "'macs=50%', 'params=1.2M' or 'macs=0.5'"
    if is_speedup(target):
        forms = f"'{target}=2x'"
    elif is_measured(target):
        forms = f"'{target}=70%', '{target}=12ms' or '{target}=0.7'"
    return f"can't read the budget {text!r}: write {forms}"
