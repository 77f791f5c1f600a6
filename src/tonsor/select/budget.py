"""What to aim for: a fraction, or an amount, of a cost that is to be kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches

from tonsor.errors import BudgetError, SelectionError

TARGETS = ("macs", "params", "mac_conv", "flops2_conv", "counter_rethinking")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_FORM = re.compile(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*(%|[kmgt]?)\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much of a cost to keep: `kept` as a fraction, or `amount` absolutely."""

    target: str
    kept: float | None = None
    amount: float | None = None

    def limit(self, whole: float) -> float:
        """Return the largest cost allowed, given the cost of the whole model."""
        return self.amount if self.amount is not None else whole * (self.kept or 0.0)

    def __str__(self) -> str:
        if self.amount is not None:
            return f"{self.target}={self.amount:g}"
        return f"{self.target}={100 * (self.kept or 0):g}%"


def macs(kept: float) -> Budget:
    """Keep this fraction of the multiply-accumulates."""
    return _fraction("macs", kept)


def params(kept: float) -> Budget:
    """Keep this fraction of the parameters."""
    return _fraction("params", kept)


def as_budget(text: object) -> Budget:
    """Read a budget such as `macs=50%`, `params=1.2M` or `50% macs`; it says what is *kept*.

    >>> as_budget("macs=50%")
    Budget(target='macs', kept=0.5, amount=None)
    """
    if isinstance(text, Budget):
        return text
    if not isinstance(text, str):
        message = f"a budget is text such as 'macs=50%', or tonsor.macs(0.5); got {text!r}"
        raise BudgetError(message)
    target, equals, value = text.partition("=")
    if not equals:
        words = text.split()
        target, value = (words[1], words[0]) if len(words) == 2 else (text, "")
    target = target.strip().lower()
    if target not in TARGETS:
        close = get_close_matches(target, TARGETS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(TARGETS)}"
        message = f"no budget is called '{target}'; {hint}"
        raise SelectionError(message)
    found = _FORM.match(value)
    if found is None:
        message = f"can't read the budget {text!r}: write 'macs=50%', 'params=1.2M' or 'macs=0.5'"
        raise BudgetError(message)
    unit = found[2].lower()
    try:
        number = float(found[1])
    except ValueError:
        message = f"can't read the budget {text!r}: {found[1]!r} is not a number"
        raise BudgetError(message) from None
    if unit == "%":
        return _fraction(target, number / 100)
    if unit == "" and number <= 1:
        return _fraction(target, number)
    return Budget(target, amount=number * _UNITS[unit])


def _fraction(target: str, kept: float) -> Budget:
    if not 0 < kept <= 1:
        message = f"the fraction of {target} to keep must be above 0 and at most 1, got {kept:g}"
        raise BudgetError(message)
    return Budget(target, kept=float(kept))
