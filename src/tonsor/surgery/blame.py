"""Find which groups make a cut come out wrong, by cutting fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from tonsor.errors import ProofError, SurgeryError
from tonsor.graph.inputs import Inputs
from tonsor.surgery.apply import apply_cut
from tonsor.surgery.proof import prove
from tonsor.types import Cut, Pin

Failing = Callable[[Sequence[str]], str]


def cut_fails(model: nn.Module, inputs: Inputs, cut: Cut) -> str:
    """Apply a cut and prove it; return what goes wrong, or nothing."""
    try:
        prove(model, apply_cut(model, cut), cut, inputs)
    except (ProofError, SurgeryError) as error:
        return str(error)
    return ""


def blame(names: Sequence[str], failing: Failing, ties: Mapping[str, set[str]]) -> dict[str, Pin]:
    """Pin groups until what is left passes.

    `failing(names)` cuts these groups only and says what goes wrong. Each round bisects for
    the first group whose joining makes it fail, and pins that one with its ties.
    """
    pins: dict[str, Pin] = {}
    left = list(names)
    while left and (what := failing(left)):
        low, high = 0, len(left)
        while high - low > 1:
            middle = (low + high) // 2
            found = failing(_closed(left[:middle], ties))
            if found:
                high, what = middle, found
            else:
                low = middle
        for name in ties.get(left[high - 1], {left[high - 1]}):
            pins[name] = Pin("value", f"cutting it changes more than what it removes: {what}")
        left = [n for n in left if n not in pins]
    return pins


def _closed(names: Sequence[str], ties: Mapping[str, set[str]]) -> list[str]:
    return list({p: None for n in names for p in ties.get(n, {n})})
