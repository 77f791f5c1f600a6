"""The search written down a second time, for a chain of three convolutions with BatchNorm.

Branches are added up one by one, as in the paper: what comes out of a norm is laid out again for
each criterion and each rate, and filters are ranked by loops.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.nets import Batch

RATES = (0.0, 0.25, 0.5, 0.7)
Odds = list[tuple[Tensor, Tensor]]
"""Of each convolution: how much of each criterion is taken, and of each rate."""


class ByHand:
    """Weights by SGD with momentum, odds by Adam, both written out."""

    def __init__(
        self, net: nn.Module, odds: list[Batch], target: float, steps: int, *, straight: bool,
        seed: int = 0, lr: float = 0.05, decay: float = 1e-3, even: bool = False,
        refresh: int = 1, upper: bool = True,
    ) -> None:  # fmt: skip
        self.net: Any = copy.deepcopy(net)
        self.convs = [self.net.conv1, self.net.conv2, self.net.conv3]
        self.norms = [self.net.bn1, self.net.bn2, self.net.bn3]
        self.odds_data, self.target, self.steps, self.straight = odds, target, steps, straight
        self.lr, self.decay, self.refresh, self.upper = lr, decay, refresh, upper
        self.chance = torch.Generator().manual_seed(seed)
        self.theta = torch.zeros(3, 3, dtype=torch.float64)
        tilted = 0.0 if even else self.slope()
        self.beta = torch.stack([tilted * torch.tensor(RATES, dtype=torch.float64)] * 3)
        self.adam = [[torch.zeros_like(x), torch.zeros_like(x)] for x in (self.theta, self.beta)]
        self.moved: dict[str, Tensor] = {}
        self.done = 0
        self.sides: set[int] = set()
        self.order = self.ranked()
        self.drawn = self.draw(self.theta, self.beta)

    # ------------------------------------------------------------ what is kept, and its cost

    def ranked(self) -> list[list[list[int]]]:
        """Of each convolution and criterion: the filters, the best first."""
        found = []
        for conv in self.convs:
            filters = conv.weight.detach().flatten(1)
            size = range(len(filters))
            l1 = [float(f.abs().sum()) for f in filters]
            l2 = [math.sqrt(float((f * f).sum())) for f in filters]
            apart = [sum(float((a - b).square().sum().sqrt()) for b in filters) for a in filters]
            found.append([sorted(size, key=lambda i, s=s: -s[i]) for s in (l1, l2, apart)])
        return found

    @staticmethod
    def left(rate: float, size: int) -> int:
        return max(1, math.floor((1 - rate) * size + 0.5))

    def counts(self, odds: Tensor) -> list[Tensor]:
        """How many filters are expected of each convolution."""
        return [
            sum((q * self.left(r, len(c.weight)) for q, r in zip(row, RATES, strict=True)),
                torch.zeros((), dtype=torch.float64))
            for row, c in zip(odds, self.convs, strict=True)
        ]  # fmt: skip

    @staticmethod
    def macs(counts: list[Tensor]) -> Tensor:
        """On pictures of 8 by 8, halved by a pooling, and cut to 2 by 2 by the last convolution."""
        one, two, three = counts
        return 9 * 64 * one + 9 * 16 * one * two + 9 * 4 * two * three + 10 * three

    def slope(self) -> float:
        """The slope of logits along the rates by which the target is expected."""
        rates = torch.tensor(RATES, dtype=torch.float64)
        low, high = -100.0, 100.0
        for _ in range(200):
            middle = (low + high) / 2
            cost = self.macs(self.counts(torch.stack([(middle * rates).softmax(0)] * 3)))
            low, high = (middle, high) if cost > self.target else (low, middle)
        return low

    # ------------------------------------------------------------ draws, and the net by branches

    def temperature(self) -> float:
        return 5.0 + (0.1 - 5.0) * self.done / (self.steps - 1)

    def draw(self, theta: Tensor, beta: Tensor) -> Odds:
        heat, found = self.temperature(), []
        for logits in (theta, beta):
            uniform = torch.rand(logits.shape, generator=self.chance, dtype=torch.float64)
            noise = -torch.log(-torch.log(uniform))
            powers = torch.exp((logits - logits.exp().sum(1, keepdim=True).log() + noise) / heat)
            found.append(powers / powers.sum(1, keepdim=True))
        return list(zip(found[0], found[1], strict=True))

    def branches(self, layer: int, out: Tensor, odds: tuple[Tensor, Tensor]) -> Tensor:
        """Add up what each criterion and rate lets through, each at its place."""
        total = torch.zeros_like(out)
        criteria, rates = odds
        if self.straight:
            # One branch is computed; its gradients are those of all branches.
            one_s, one_k = int(criteria.argmax()), int(rates.argmax())
            criteria = criteria - criteria.detach() + F.one_hot(torch.tensor(one_s), 3)
            rates = rates - rates.detach() + F.one_hot(torch.tensor(one_k), len(RATES))
        for s in range(3):
            for k, rate in enumerate(RATES):
                stays = self.order[layer][s][: self.left(rate, out.shape[1])]
                branch = torch.zeros_like(out)
                branch[:, stays] = out[:, stays]
                total = total + criteria[s] * rates[k] * branch
        return total

    def forward(self, x: Tensor, odds: Odds) -> Tensor:
        x = self.branches(0, self.norms[0](self.convs[0](x)), odds[0]).relu()
        x = F.max_pool2d(x, 2)
        x = self.branches(1, self.norms[1](self.convs[1](x)), odds[1]).relu()
        x = self.branches(2, self.norms[2](self.convs[2](x)), odds[2]).relu()
        return self.net.linear(x.mean((2, 3)))

    # ------------------------------------------------------------ the two steps

    def step(self, batch: Batch) -> None:
        self.train_weights(batch)
        if self.done % self.refresh == 0:
            self.order = self.ranked()
        self.learn_odds(self.odds_data[self.done % len(self.odds_data)])
        self.done += 1
        if self.done < self.steps:
            self.drawn = self.draw(self.theta, self.beta)

    def train_weights(self, batch: Batch) -> None:
        drawn = [(c.detach(), r.detach()) for c, r in self.drawn]
        loss = F.cross_entropy(self.forward(batch[0], drawn), batch[1])
        names = [n for n, _ in self.net.named_parameters()]
        gradients = torch.autograd.grad(loss, list(self.net.parameters()))
        with torch.no_grad():
            for name, p, g in zip(names, self.net.parameters(), gradients, strict=True):
                change = g + 1e-4 * p
                self.moved[name] = 0.9 * self.moved[name] + change if name in self.moved else change
                p -= 0.05 * self.moved[name]

    def learn_odds(self, batch: Batch) -> None:
        logits = [self.theta.requires_grad_(), self.beta.requires_grad_()]
        before = copy.deepcopy(dict(self.net.named_buffers()))
        drawn = self.draw(*logits)
        loss = F.cross_entropy(self.forward(batch[0], drawn), batch[1])
        expected = self.macs(self.counts(self.beta.exp() / self.beta.exp().sum(1, keepdim=True)))
        single = torch.stack([F.one_hot(r.argmax(), len(RATES)) for _, r in drawn])
        actual = float(self.macs(self.counts(single.double())))
        side = int(actual > (1.05 if self.upper else 1.0) * self.target)
        side -= int(actual < 0.95 * self.target)
        self.sides.add(side)
        gradients = torch.autograd.grad(loss + 2.0 * side * expected.log(), logits)
        for name, buffer in self.net.named_buffers():
            buffer.copy_(before[name])
        for x, g, (m, v) in zip(logits, gradients, self.adam, strict=True):
            x.requires_grad_(False)
            g = g + self.decay * x
            m.mul_(0.5).add_(0.5 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            mean, square = m / (1 - 0.5 ** (self.done + 1)), v / (1 - 0.999 ** (self.done + 1))
            x -= self.lr * mean / (square.sqrt() + 1e-8)
