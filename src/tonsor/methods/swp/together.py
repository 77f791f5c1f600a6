"""The filters of a convolution that share their stripes, as training needs them: for tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tonsor.select.fibres.sharing import Sharing


class Together:
    """Takes what there is for each filter to what there is for each group of filters, and back."""

    def __init__(self, sharing: Sharing, kernel: Sequence[int]) -> None:
        self.sharing = sharing
        shape = (sharing.groups, *kernel)
        self._slots = torch.from_numpy(sharing.slots)
        self._there = torch.from_numpy(sharing.there).view(-1, *kernel)
        self._whole = bool(sharing.left.all())
        self._counts = torch.from_numpy(sharing.counts).view(shape)

    @property
    def alone(self) -> bool:
        """Whether every filter is a group of its own."""
        return self.sharing.alone

    def counts(self, like: Tensor) -> Tensor:
        """Say for how many filters each number of a group stands."""
        self._counts = self._counts.to(like)
        return self._counts

    def spread(self, numbers: Tensor) -> Tensor:
        """Show the numbers of groups as numbers of filters; gradients are summed on the way back.

        No sum in here depends on an order that could change from run to run, on any device.
        """
        if self.alone:
            return numbers
        whole = numbers.unsqueeze(1).expand(-1, self.sharing.size, *numbers.shape[1:]).flatten(0, 1)
        if self._whole:
            return whole[: len(self._slots)]
        self._slots = self._slots.to(numbers.device)
        return whole[self._slots]

    def norms(self, weight: Tensor) -> Tensor:
        """Return the norm of each stripe; of those that go as one, the root mean square of it."""
        norms = weight.detach().norm(dim=1)
        if self.alone:
            return norms
        self._there, self._slots = self._there.to(norms), self._slots.to(norms.device)
        padded = norms.new_zeros(self.sharing.groups * self.sharing.size, *norms.shape[1:])
        squares = norms.square() * self._there
        left = torch.from_numpy(self.sharing.left).to(norms.device)
        padded[self._slots[left]] = squares[left]
        sums = padded.unflatten(0, (-1, self.sharing.size)).sum(1)
        return (sums / self.counts(norms).clamp_min(1)).sqrt()
