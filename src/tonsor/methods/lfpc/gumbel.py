"""Choices that are drawn, and yet tell how the odds should change: the Gumbel softmax."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the noise that turns the largest of some logits into a fair draw by their odds."""
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return -(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()


def relaxed(
    logits: Tensor, temperature: float, noise: Tensor, *, hard: bool = False,
    among: int | None = None, generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Return how much of each choice is taken, row by row; it adds up to 1.

    The lower the temperature, the nearer to a single choice. `hard` takes just one, with the
    gradient of the mixture (straight through). `among` draws so many choices first and mixes only
    those.

    >>> rows = relaxed(torch.zeros(2, 3), 0.1, torch.tensor([[0.0, 9, 0], [9, 0, 0]]), hard=True)
    >>> rows.tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    scaled = (logits.log_softmax(-1) + noise) / temperature
    taken = scaled.softmax(-1)
    if among is not None and among < logits.shape[-1]:
        # Far away from one another, some have no chance at all in numbers, and are drawn last.
        odds = taken.detach().clamp_min(torch.finfo(taken.dtype).tiny)
        drawn = torch.multinomial(odds, among, generator=generator)
        out = torch.full_like(scaled, -torch.inf).scatter(-1, drawn, 0.0)
        taken = (scaled + out).softmax(-1)
    if not hard:
        return taken
    one = torch.zeros_like(taken).scatter(-1, taken.argmax(-1, keepdim=True), 1.0)
    return one + (taken - taken.detach())  # in this order it is one to the last bit


def cooled(first: float, last: float, done: float) -> float:
    """Return the temperature when this part of a search is done; it falls in a straight line."""
    return first + (last - first) * min(1.0, max(0.0, done))
