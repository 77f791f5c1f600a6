"""Second-order criteria, with the Hessian taken for diagonal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tonsor.criteria.gather import together
from tonsor.criteria.gradients import explained, gradients
from tonsor.criteria.registry import criterion
from tonsor.families.channels import as_real


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


@contextmanager
def derivable(needed: bool) -> Iterator[None]:
    """Compute attention from operators that have second derivatives, where they are needed."""
    with sdpa_kernel(SDPBackend.MATH) if needed else nullcontext():
        yield


def squares(loss: Tensor, weights: list[Tensor]) -> Iterable[Tensor | None]:
    """The squared gradients of one sample."""
    return [None if g is None else as_real(g).square() for g in gradients(loss, weights)]


class Hutchinson:
    """Estimates the diagonal of the Hessian: the mean of v · Hv over random vectors of signs.

    Each minibatch has its own vector. Where several processes run, each draws other ones.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._rank, self._world, self._count = 0, 1, 0
        if together():
            self._rank = torch.distributed.get_rank()
            self._world = torch.distributed.get_world_size()

    def __call__(self, loss: Tensor, weights: list[Tensor]) -> Iterable[Tensor | None]:
        """Return one estimate."""
        generator = torch.Generator().manual_seed(
            self._seed * 1_000_003 + self._count * self._world + self._rank
        )
        self._count += 1
        first = gradients(loss, weights, create_graph=True)
        signs = [_signs(w, generator) for w in weights]
        # A weight in which the loss is linear has a gradient without derivatives, and no curvature.
        used = [
            (g, v) for g, v in zip(first, signs, strict=True) if g is not None and g.requires_grad
        ]
        free = [w for w, g in zip(weights, first, strict=True) if g is not None]
        if not used:
            second: list[Tensor | None] = [None for _ in free]
        else:
            with explained("the loss has no second derivative"):
                second = list(
                    torch.autograd.grad(
                        [g for g, _ in used], free, [v for _, v in used], allow_unused=True
                    )
                )
        found = iter(second)
        return [
            None if g is None else as_real(v) * as_real(_or_zero(next(found), w))
            for g, v, w in zip(first, signs, weights, strict=True)
        ]


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    shape = as_real(weight.detach()).shape
    signs = 2 * torch.randint(0, 2, shape, generator=generator).to(weight.device) - 1
    if weight.is_complex():
        return torch.view_as_complex(signs.to(weight.real.dtype))
    return signs.to(weight)


def _or_zero(gradient: Tensor | None, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if gradient is None else gradient
