"""What is remembered of a search."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moment:
    """How a search stood after a step: the loss of what was drawn, its cost, and the odds.

    `criteria` and `rates` are logits, with a row for each site.
    """

    step: int
    temperature: float
    loss: float
    drawn: float
    expected: float
    criteria: list[list[float]]
    rates: list[list[float]]
