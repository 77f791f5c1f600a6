"""The table of rules: operator name to the function that says what its axes are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tonsor.axes.solver import Solver
    from tonsor.types import Op

# A rule returns the axes of each output, or None where all outputs are pinned by fallback.
Rule = Callable[["Solver", "Op"], Any]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators, named as torch names them without the overload.

    >>> @rule("mylib.scale_channels")
    ... def scale_channels(s, op):
    ...     x, gain = s.axes_of(op, "x", "gain")
    ...     s.unify(x[1], gain[0])
    ...     return [x]
    """

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                message = f"operator '{name}' has a rule already: {RULES[name].__name__}"
                raise ValueError(message)
            RULES[name] = function
        return function

    return register
