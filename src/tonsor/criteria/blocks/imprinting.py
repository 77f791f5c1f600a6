"""Imprinting: how well prototypes of the classes tell them apart after each block."""

from __future__ import annotations

import torch
from torch import Tensor

from tonsor.criteria.blocks.curve import First, curve
from tonsor.criteria.blocks.material import Material
from tonsor.criteria.blocks.scores import BlockScores


class Prototypes:
    """The mean vector of each class; a vector belongs to the one it points to most."""

    def __init__(self) -> None:
        self.sums = torch.zeros(0, 0)
        self.counts = torch.zeros(0)

    def learn(self, vectors: Tensor, classes: Tensor) -> None:
        """Add the vectors of one minibatch up by class."""
        self.sums, self.counts = add_by_class(self.sums, self.counts, vectors, classes)

    def settle(self) -> None:
        """Make every mean one long, which the number of its vectors then does not matter to."""
        length = torch.linalg.vector_norm(self.sums, dim=1, keepdim=True)
        self.sums = self.sums / length.clamp(min=torch.finfo(self.sums.dtype).tiny)

    def predict(self, vectors: Tensor) -> Tensor:
        """Return the class whose prototype has the largest product with each vector."""
        return known_only(vectors @ self.sums.T, self.counts).argmax(1)


def imprint(material: Material, *, size: int = 0, first: First = "zero") -> BlockScores:
    """What a block adds to the accuracy of prototypes of the classes (LayerPrune, 2020).

    What each block returns is pooled to about `size` numbers a sample: 512 for plain networks and
    2048 for others if not said, as in the paper. The prototype of a class is the mean over its
    samples, of length 1. With no `judge`, every fifth minibatch is kept to judge on; the paper
    learns from the training set and judges on the test set.
    """
    return curve(material, "imprint", Prototypes, size, first)


def add_by_class(
    sums: Tensor, counts: Tensor, vectors: Tensor, classes: Tensor
) -> tuple[Tensor, Tensor]:
    """Add vectors to the sums of their classes, of which there may be more than before."""
    count = max(len(sums), int(classes.max()) + 1 if len(classes) else 0)
    if count > len(sums):
        new = count - len(sums)
        sums = torch.cat([sums.reshape(-1, vectors.shape[1]).to(vectors),
                          vectors.new_zeros(new, vectors.shape[1])])  # fmt: skip
        counts = torch.cat([counts.to(vectors), vectors.new_zeros(new)])
    sums.index_add_(0, classes, vectors)
    counts += torch.bincount(classes, minlength=count)
    return sums, counts


def known_only(values: Tensor, counts: Tensor) -> Tensor:
    """Rule out classes that nothing was learned of."""
    return values.masked_fill(counts == 0, -torch.inf)
