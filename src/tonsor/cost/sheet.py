"""Sums of products of axis sizes, made ready to be evaluated many times.

A budget is met by trying: the same sum is wanted for hundreds of counts. So every axis is
looked at once beforehand, equal terms are merged, and a concatenation that many terms share
is added up once for each evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tonsor.cost.terms import Counts
from tonsor.types import Axis, Concat, Leaf

Entry: TypeAlias = tuple[str, int, Sequence[Axis]]
_Monomial: TypeAlias = tuple[int, tuple[int, ...]]
Monomials: TypeAlias = Sequence[_Monomial]
"""Products, each a number and the slots of its factors."""


class Sheet:
    """One sum of `factor × Π count(axis)` for each key.

    `fixed` gives sizes to leaves that no plan changes, whatever the counts say.

    >>> width, depth = Leaf("w", 4), Leaf("d", 3)
    >>> Sheet([("all", 2, [width, depth])]).totals({"w": 1})
    {'all': 6}
    """

    def __init__(self, entries: Iterable[Entry], fixed: Mapping[str, int] | None = None) -> None:
        self._fixed = fixed or {}
        self._leaves: dict[str, tuple[int, int]] = {}  # name: slot, size
        self._concats: list[list[_Monomial]] = []
        self._known: dict[Axis, _Monomial] = {}
        # Trees are shared, so their identity saves walking each again and again.
        self._seen: dict[int, tuple[Axis, _Monomial]] = {}
        sums: dict[str, dict[tuple[int, ...], int]] = {}
        for key, factor, axes in entries:
            number, slots = self._multiplied(axes)
            merged = sums.setdefault(key, {})
            merged[slots] = merged.get(slots, 0) + factor * number
        offset = len(self._leaves)
        self._adds = [_placed(concat, offset) for concat in self._concats]
        self._sums = {
            key: _placed(((n, slots) for slots, n in merged.items() if n), offset)
            for key, merged in sums.items()
        }
        self._start = [(name, size) for name, (_, size) in self._leaves.items()]

    def totals(self, counts: Counts) -> dict[str, int]:
        """Evaluate every sum."""
        values = [counts.get(name, size) for name, size in self._start]
        for segments in self._adds:
            values.append(_total(segments, values))
        return {key: _total(monomials, values) for key, monomials in self._sums.items()}

    def parts(self, key: str) -> tuple[Sequence[tuple[str, int]], Sequence[Monomials], Monomials]:
        """Return the leaves and their sizes, the concatenations behind them, and a sum of both."""
        return self._start, self._adds, self._sums.get(key, [])

    def _multiplied(self, axes: Iterable[Axis]) -> _Monomial:
        """Write a product of axes as a number and slots; concatenations have negative ones."""
        number, slots = 1, []
        for axis in axes:
            factor, more = self._slots(axis)
            number *= factor
            slots += more
        return number, tuple(sorted(slots))

    def _slots(self, axis: Axis) -> _Monomial:
        seen = self._seen.get(id(axis))
        if seen is not None:
            return seen[1]
        known = self._known.get(axis)
        if known is None:
            known = self._known[axis] = self._new(axis)
        self._seen[id(axis)] = (axis, known)
        return known

    def _new(self, axis: Axis) -> _Monomial:
        if isinstance(axis, Leaf):
            if axis.name in self._fixed:
                return self._fixed[axis.name], ()
            slot, _ = self._leaves.setdefault(axis.name, (len(self._leaves), axis.size))
            return 1, (slot,)
        if isinstance(axis, Concat):
            self._concats.append([self._slots(segment) for segment in axis.segments])
            return 1, (-len(self._concats),)
        return self._multiplied(axis.factors)


def _placed(monomials: Iterable[_Monomial], offset: int) -> list[_Monomial]:
    """Give concatenations their places behind the leaves, now that all leaves are known."""
    return [
        (number, tuple(slot if slot >= 0 else offset - 1 - slot for slot in slots))
        for number, slots in monomials
    ]


def _total(monomials: list[_Monomial], values: list[int]) -> int:
    total = 0
    for number, slots in monomials:
        for slot in slots:
            number *= values[slot]
        total += number
    return total
