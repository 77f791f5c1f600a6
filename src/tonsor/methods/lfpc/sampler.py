"""What is learned: the odds of criteria and rates at each site."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tonsor.methods.lfpc.gumbel import cooled, gumbel, relaxed
from tonsor.methods.lfpc.search import Search


@dataclass(frozen=True, slots=True)
class Drawn:
    """How much of each criterion and rate is taken at each site, and which one most."""

    criteria: Tensor
    rates: Tensor

    def single(self) -> Drawn:
        """Take only what is taken most, without gradients."""
        return Drawn(_single(self.criteria), _single(self.rates))


class Sampler:
    """The logits of criteria and rates at each site, and the optimizer that changes them.

    `fixed` criteria are given for each site and not learned.
    """

    def __init__(
        self, sites: int, criteria: int, rates: int, *, steps: int, how: Search, seed: int = 0,
        fixed: Tensor | None = None, begin: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.how, self.steps, self.done = how, steps, 0
        self.generator = torch.Generator().manual_seed(seed)
        self._fixed = fixed
        zeros = torch.zeros(sites, rates, dtype=torch.float64)
        self.theta = torch.zeros(sites, criteria, dtype=torch.float64, requires_grad=True)
        self.beta = (zeros if begin is None else zeros + begin).requires_grad_()
        self._optimizer = torch.optim.Adam(
            [self.theta, self.beta], lr=how.rate(steps), betas=how.betas, weight_decay=how.decay
        )  # fmt: skip

    @property
    def temperature(self) -> float:
        """The temperature of the next draw."""
        how = self.how
        return cooled(how.warm, how.cold, self.done / max(1, self.steps - 1))

    def draw(self) -> Drawn:
        """Draw criteria and rates for all sites."""
        criteria = self._drawn(self.theta)
        return Drawn(self._fixed if self._fixed is not None else criteria, self._drawn(self.beta))

    def odds(self) -> Drawn:
        """Return the odds as they are by now."""
        criteria = self.theta.softmax(-1) if self._fixed is None else self._fixed
        return Drawn(criteria, self.beta.softmax(-1))

    def learn(self, loss: Callable[[Drawn], Tensor]) -> float:
        """Draw, and change the odds so that the loss of what was drawn becomes less."""
        found = loss(self.draw())
        parts = torch.autograd.grad(found, [self.theta, self.beta], allow_unused=True)
        for logits, gradient in zip((self.theta, self.beta), parts, strict=True):
            logits.grad = gradient
        self._take_turns()
        return float(found.detach())

    def step(self) -> None:
        """Change the odds by the gradients that they have by now."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.done += 1

    def _drawn(self, logits: Tensor) -> Tensor:
        how = self.how
        noise = gumbel(tuple(logits.shape), self.generator)
        return relaxed(
            logits, self.temperature, noise, hard=how.masks == "straight", among=how.among,
            generator=self.generator,
        )  # fmt: skip

    def _take_turns(self) -> None:
        """Leave as it is what is not learned, or has not its turn."""
        late = self.done >= self.steps / 2
        if self.how.turns != "together":
            criteria = (self.how.turns == "criteria first") != late
            (self.beta if criteria else self.theta).grad = None
        if self._fixed is not None:
            self.theta.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the logits, what the optimizer remembers, and the state of chance."""
        return {
            "theta": self.theta.detach().clone(), "beta": self.beta.detach().clone(),
            "optimizer": self._optimizer.state_dict(), "done": self.done,
            "generator": self.generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        with torch.no_grad():
            self.theta.copy_(state["theta"])
            self.beta.copy_(state["beta"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]
        self.generator.set_state(state["generator"].cpu())


def tilt(rates: tuple[float, ...], cost: Callable[[Tensor], float], target: float) -> Tensor:
    """Return logits of rates, the same at all sites, with which a cost is expected.

    Of all odds with such a cost they are about the most even ones.
    """
    values = torch.tensor(rates, dtype=torch.float64)
    low, high = -math.inf, math.inf
    slope = 0.0
    for _ in range(60):
        if cost((slope * values).softmax(-1)) > target:
            low = slope
        else:
            high = slope
        slope = _between(low, high)
    return slope * values


def _between(low: float, high: float) -> float:
    if math.isinf(low):
        return min(-1.0, 2 * high)
    if math.isinf(high):
        return max(1.0, 2 * low)
    return (low + high) / 2


def _single(taken: Tensor) -> Tensor:
    most = taken.detach().argmax(-1, keepdim=True)
    return torch.zeros_like(taken.detach()).scatter(-1, most, 1.0)
