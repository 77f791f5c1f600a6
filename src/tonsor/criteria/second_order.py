"""Second-order criteria, with the Hessian taken for diagonal."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tonsor.criteria.gradients import gradients
from tonsor.criteria.registry import criterion


@criterion("obd", needs="curvature")
def obd(weight: Tensor, diagonal: Tensor) -> Tensor:
    """Half the sum of Hessian · weight², as Optimal Brain Damage (LeCun et al., 1990).

    The diagonal of the Hessian is that of the loss itself, by Hutchinson's estimate with one
    random vector of signs for each minibatch: more minibatches, less noise.
    """
    return (0.5 * diagonal * weight.square()).flatten(1).sum(1)


@criterion("fisher", needs="squares")
def fisher(weight: Tensor, squares: Tensor) -> Tensor:
    """Half the sum of weight² · squared gradient, the mean over samples (empirical Fisher)."""
    return (0.5 * squares * weight.square()).flatten(1).sum(1)


def squares(loss: Tensor, weights: list[Tensor]) -> tuple[Iterable[Tensor], float]:
    """The squared gradients of one sample."""
    found = gradients(loss, weights)
    return [_or_zero(g, w).square() for g, w in zip(found, weights, strict=True)], 1.0


class Hutchinson:
    """Estimates the diagonal of the Hessian: the mean of v · Hv over random vectors of signs."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, loss: Tensor, weights: list[Tensor]) -> tuple[Iterable[Tensor], float]:
        """Return one estimate."""
        first = gradients(loss, weights, create_graph=True)
        signs = [self._signs(w) for w in weights]
        used = [
            (g, v) for g, v in zip(first, signs, strict=True) if g is not None and g.requires_grad
        ]
        if not used:
            return [torch.zeros_like(w) for w in weights], 1.0
        second = torch.autograd.grad(
            [g for g, _ in used], weights, [v for _, v in used], allow_unused=True
        )
        return [v * _or_zero(h, w) for v, h, w in zip(signs, second, weights, strict=True)], 1.0

    def _signs(self, weight: Tensor) -> Tensor:
        drawn = torch.randint(0, 2, weight.shape, generator=self._generator)
        return (2 * drawn - 1).to(weight)


def _or_zero(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if gradient is None else gradient
