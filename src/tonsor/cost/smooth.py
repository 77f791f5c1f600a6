"""What a model costs where counts lie between whole numbers, and what each count is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tonsor.cost.sheet import Monomials, Sheet


class Smooth:
    """A sum of products of counts as a function of tensors, with gradients.

    `names` are the leaves whose counts are given, in this order; `fixed` are the counts of others,
    and the rest is whole.

    >>> from tonsor.types import Leaf
    >>> sheet = Sheet([("", 2, [Leaf("w", 4), Leaf("d", 3)])])
    >>> counts = torch.tensor([1.5], dtype=torch.float64, requires_grad=True)
    >>> cost = Smooth(sheet, "", ["w"])(counts)
    >>> cost.item(), torch.autograd.grad(cost, counts)[0].item()
    (9.0, 6.0)
    """

    def __init__(
        self, sheet: Sheet, key: str, names: Sequence[str], fixed: Mapping[str, int] | None = None
    ) -> None:  # fmt: skip
        leaves, concats, sums = sheet.parts(key)
        known = fixed or {}
        # Behind the leaves stand the concatenations, and last of all a 1, which fills up products.
        self._sizes = torch.tensor([known.get(n, s) for n, s in leaves], dtype=torch.float64)
        slots = {name: slot for slot, (name, _) in enumerate(leaves)}
        here = [i for i, name in enumerate(names) if name in slots]
        self._given = torch.tensor(here, dtype=torch.long)
        self._slots = torch.tensor([slots[names[i]] for i in here], dtype=torch.long)
        one = len(leaves) + len(concats)
        self._concats = [_laid_out(c, one) for c in concats]
        self._sum = _laid_out(sums, one)

    def __call__(self, counts: Tensor) -> Tensor:
        """Return the cost of so many of each name."""
        values = self._sizes.index_put((self._slots,), counts.double()[self._given])
        filled = len(self._concats)
        rest = torch.ones(filled + 1, dtype=torch.float64)
        values = torch.cat([values, rest])
        for i, concat in enumerate(self._concats):
            place = torch.tensor([len(self._sizes) + i])
            values = values.index_put((place,), _total(concat, values)[None])
        return _total(self._sum, values)


def _laid_out(monomials: Monomials, one: int) -> tuple[Tensor, Tensor]:
    """Return the factors, and the slots of each product, of one length."""
    longest = max((len(slots) for _, slots in monomials), default=0)
    rows = [[*slots, *[one] * (longest - len(slots))] for _, slots in monomials]
    factors = torch.tensor([n for n, _ in monomials], dtype=torch.float64)
    return factors, torch.tensor(rows, dtype=torch.long).reshape(len(rows), longest)


def _total(monomials: tuple[Tensor, Tensor], values: Tensor) -> Tensor:
    factors, slots = monomials
    return (factors * values[slots].prod(1)).sum()
