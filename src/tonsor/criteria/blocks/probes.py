"""Linear probes: how well a linear classifier tells the classes apart after each block."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from tonsor.criteria.blocks.curve import First, curve
from tonsor.criteria.blocks.imprinting import add_by_class, known_only
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.scores import BlockScores
from tonsor.errors import SelectionError


class Ridge:
    """Least squares from vectors to classes, with an intercept and a penalty on the weights.

    Only sums of products are kept. The penalty is `decay` times the mean eigenvalue of the
    vectors' covariance.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.origin = torch.zeros(0)
        self.products = torch.zeros(0, 0)
        self.sums = torch.zeros(0, 0)
        self.counts = torch.zeros(0)
        self.weight = torch.zeros(0, 0)
        self.bias = torch.zeros(0)

    def learn(self, vectors: Tensor, classes: Tensor) -> None:
        """Add the products of one minibatch up."""
        if not len(self.products):
            self.products = vectors.new_zeros(vectors.shape[1], vectors.shape[1])
            # Near its mean, what hardly varies is not lost in the sums of squares.
            self.origin = vectors.mean(0)
        vectors = vectors - self.origin
        self.products.addmm_(vectors.T, vectors)
        self.sums, self.counts = add_by_class(self.sums, self.counts, vectors, classes)

    def settle(self) -> None:
        """Solve for the weights."""
        total = self.counts.sum()
        mean, share = self.sums.sum(0) / total, self.counts / total
        covariance = self.products - total * torch.outer(mean, mean)
        wanted = self.sums.T - torch.outer(mean, self.counts)
        covariance.diagonal().add_(self.decay * covariance.diagonal().mean())
        # Channels may be dead, so that without a penalty there is no inverse.
        values, vectors = torch.linalg.eigh(covariance)
        least = values.amax().clamp(min=torch.finfo(values.dtype).tiny) * 1e-12
        inverse = torch.where(values > least, 1 / values.clamp(min=least), 0)
        self.weight = vectors @ (inverse[:, None] * (vectors.T @ wanted))
        self.bias = share - mean @ self.weight
        self.products = torch.zeros(0, 0)

    def predict(self, vectors: Tensor) -> Tensor:
        """Return the class of the largest output."""
        return known_only((vectors - self.origin) @ self.weight + self.bias, self.counts).argmax(1)


def probe(
    material: Material, *, size: int = 512, decay: float = 1e-3, first: First = "zero"
) -> BlockScores:
    """What a block adds to the accuracy of a linear classifier behind it (Chen and Zhao, 2018).

    The paper trains each classifier by gradient descent on the logistic loss; here it is ridge
    regression to the classes, solved exactly after one pass over the data. What each block
    returns is pooled to about `size` numbers a sample, or to its channels if they are more, and
    `decay` is the penalty, relative to the mean eigenvalue of their covariance.
    """
    if not decay >= 0:
        message = f"the decay of 'probe' must be at least 0, got {decay:g}"
        raise SelectionError(message)
    return curve(material, "probe", partial(Ridge, decay), size, first)
