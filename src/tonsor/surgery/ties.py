"""Ties: groups that must lose indices in step, because the model's own code needs it.

A tie maps each of its groups to how many indices it loses with every step. An even `chunk`
ties its parts, one index each; a width computed as heads times 16 is tied to the heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Tie = Mapping[str, int]


def steps(tie: Tie, counts: Mapping[str, int], sizes: Mapping[str, int]) -> dict[str, float]:
    """Return how many steps down each group of a tie has gone."""
    return {n: (sizes[n] - counts.get(n, sizes[n])) / unit for n, unit in tie.items()}


def holds(tie: Tie, counts: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    """Whether all groups of a tie have gone equally many whole steps down.

    >>> holds({"width": 16, "heads": 1}, {"width": 32, "heads": 2}, {"width": 64, "heads": 4})
    True
    """
    found = set(steps(tie, counts, sizes).values())
    return len(found) <= 1 and all(s.is_integer() for s in found)


def joined(ties: Iterable[Tie]) -> tuple[Tie, ...]:
    """Make one tie of those that share a group.

    >>> joined([{"a": 1, "b": 1}, {"c": 2, "d": 1}, {"b": 1, "e": 1}])
    ({'c': 2, 'd': 1}, {'a': 1, 'b': 1, 'e': 1})

    Where two ties give one group different steps both stay, and both have to hold.
    """
    out: list[dict[str, int]] = []
    for tie in ties:
        whole = dict(tie)
        for other in list(out):
            shared = whole.keys() & other.keys()
            if shared and all(whole[n] == other[n] for n in shared):
                whole = other | whole
                out.remove(other)
        if whole not in out:
            out.append(whole)
    return tuple(out)


def broken(ties: Iterable[Tie], counts: Mapping[str, int], sizes: Mapping[str, int]) -> str | None:
    """Say in words which tie does not hold, or return None."""
    for tie in ties:
        if not holds(tie, counts, sizes):
            cut = [f"'{n}' {sizes[n]} → {counts.get(n, sizes[n])}" for n in tie]
            by = "" if len(set(tie.values())) == 1 else ", by " + ":".join(map(str, tie.values()))
            return f"{', '.join(cut)} would not go in step{by}, which the model's code needs"
    return None
