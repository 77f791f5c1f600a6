"""How a search goes: all of its options, with what the paper or its relatives have for them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tonsor.errors import SelectionError

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
CRITERIA = ("l1", "l2", "geometric_median")

_RATE = 0.001  # that of TAS, which takes thousands of steps
_FAR = 20.0  # about how far a logit can go then, for a step of Adam is as long as its rate
_FASTEST = 0.1

_BOUNDS: dict[str, tuple[float, float]] = {
    "tolerance": (0, 1), "weight": (0, math.inf), "lr": (0, math.inf), "decay": (0, math.inf),
    "refresh": (1, math.inf), "round_to": (1, math.inf), "warm": (0, math.inf),
    "cold": (0, math.inf), "among": (2, math.inf),  # of a single one, no odds would be learned
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Search:
    """The options of a search for criteria and rates.

    The paper leaves most of them open; then they are those of TAS (Dong & Yang, 2019), whose code
    searches for widths in the same way, or ours.

    >>> Search(masks="straight", lr=0.05).but(lr=0.1).lr
    0.1
    """

    rates: tuple[float, ...] = RATES
    """The parts of a site that may go, rising."""
    masks: Literal["soft", "straight"] = "soft"
    """Mixtures, as in the paper, or single choices that have the gradient of the mixture."""
    warm: float = 1.0
    """The temperature at the first step, which TAS has at 5; short searches do better colder,"""
    cold: float = 0.1
    """and at the last; it falls in a straight line."""
    among: int | None = None
    """Mix only so many criteria and rates, which are drawn first; None mixes all."""
    turns: Literal["together", "criteria first", "rates first"] = "together"
    """Learn criteria and rates together, or one after the other, in half of the steps each."""
    begin: Literal["budget", "even"] = "budget"
    """Begin with odds of rates by which the budget is expected (ours), or with even ones."""
    tolerance: float = 0.05
    """How far from the budget, as a part of it, the cost of what is drawn may be for nothing."""
    upper_tolerance: bool = True
    """Whether that holds above the budget too, as in the paper."""
    weight: float = 2.0
    """The weight of the cost in the loss."""
    expectation: Literal["odds", "drawn"] = "odds"
    """Expect the cost by the odds themselves, or by the mixture that was drawn."""
    lr: float | None = None
    """The rate of Adam on the logits of the odds: 0.001, unless a search is so short that it has to
    be higher for odds to get as far,"""
    betas: tuple[float, float] = (0.5, 0.999)
    """its betas,"""
    decay: float = 1e-3
    """and its weight decay."""
    refresh: int = 1
    """Score all pieces anew after so many steps."""
    train_weights: bool = True
    """Train the weights between the steps of the search, with what is drawn masked."""
    end: Literal["likeliest", "expected"] = "likeliest"
    """Each site ends with its likeliest rate, or with the number of pieces that is expected."""
    exact: bool = True
    """In the end, let all sites give or take about the same part, to just meet the budget."""
    round_to: int = 1
    """Rates leave multiples of this; what `exact` gives or takes does not keep to it."""

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        rates = _numbers(self.rates)
        rising = all(a < b for a, b in itertools.pairwise(rates))
        if not rates or not rising or not 0 <= rates[0] <= rates[-1] < 1:
            message = (
                "rates are the parts that may go, rising from at least 0 to below 1, such as "
                f"{RATES}; got {self.rates!r}"
            )
            raise SelectionError(message)
        object.__setattr__(self, "rates", rates)
        for name, kind in get_type_hints(Search).items():
            self._check(name, kind, getattr(self, name))
        if not (0 < self.cold <= self.warm < math.inf):
            message = (
                f"the temperature falls from warm={self.warm!r} to cold={self.cold!r}: it must end "
                "above 0 and not above where it begins"
            )
            raise SelectionError(message)
        if len(_numbers(self.betas)) != 2 or not all(0 <= b < 1 for b in self.betas):
            message = f"betas are two numbers from 0 to below 1, got {self.betas!r}"
            raise SelectionError(message)

    @staticmethod
    def _check(name: str, kind: Any, value: Any) -> None:
        optional = type(None) in get_args(kind)
        if get_origin(kind) is Literal and value not in get_args(kind):
            message = f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}"
            raise SelectionError(message)
        if kind is bool and type(value) is not bool:
            message = f"{name} must be True or False, got {value!r}"
            raise SelectionError(message)
        if name not in _BOUNDS or (optional and value in (None,)):
            return
        low, high = _BOUNDS[name]
        whole = kind is int or kind == int | None
        kinds = int if whole else (int, float)
        right = isinstance(value, kinds) and not isinstance(value, bool)
        if not right or not (low <= float(value) <= high and math.isfinite(value)):
            bounds = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            message = f"{name} must be a {'whole ' * whole}number {bounds}, got {value!r}"
            raise SelectionError(message)

    def rate(self, steps: int) -> float:
        """Return the rate of Adam in a search of so many steps.

        >>> Search().rate(100_000), Search().rate(400), Search(lr=0.01).rate(400)
        (0.001, 0.05, 0.01)
        """
        return max(_RATE, min(_FASTEST, _FAR / steps)) if self.lr is None else self.lr

    def but(self, **changes: Any) -> Search:
        """Return the same with some options changed."""
        return Search(**{f.name: getattr(self, f.name) for f in fields(self)} | changes)


def _numbers(given: Any) -> tuple[float, ...]:
    """Return several numbers, or none if they are anything else."""
    try:
        return () if isinstance(given, str) else tuple(float(n) for n in given)
    except (TypeError, ValueError):
        return ()
