"""Which criteria the sites of searches have chosen: how often, how deep, and how surely."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tonsor.study.markdown import table

Sites = Mapping[str, Mapping[str, Any]]
HEADER = ("criterion", "first third", "middle third", "last third", "all")


def chosen_table(criteria: Sequence[str], searches: Sequence[Sites]) -> list[str]:
    """Count how often each criterion was chosen, over all searches, by the depth of sites.

    >>> one = {"a": {"criterion": "l1"}, "b": {"criterion": "l2"}, "c": {"criterion": "l1"}}
    >>> print("\\n".join(chosen_table(["l1", "l2"], [one])))
    | criterion | first third | middle third | last third | all |
    |---|--:|--:|--:|--:|
    | l1 | 1 of 1 | 0 of 1 | 1 of 1 | 2 of 3 |
    | l2 | 0 of 1 | 1 of 1 | 0 of 1 | 1 of 3 |
    """
    return table(HEADER, _rows(criteria, searches))


def agreement(searches: Sequence[Sites]) -> tuple[int, int] | None:
    """Return at how many sites all searches chose the same, and how many there are.

    None for a single search, and for searches that do not have the same sites.
    """
    if len(searches) < 2 or any(s.keys() != searches[0].keys() for s in searches):
        return None
    chosen = [{s[site]["criterion"] for s in searches} for site in searches[0]]
    return sum(len(names) == 1 for names in chosen), len(chosen)


def sure(searches: Sequence[Sites]) -> float:
    """Return the odds of the criteria that were chosen, the mean over sites and searches."""
    odds = [max(site["criteria"]) for sites in searches for site in sites.values()]
    return sum(odds) / len(odds)


def _rows(criteria: Sequence[str], searches: Sequence[Sites]) -> Iterator[tuple[str, ...]]:
    parts: list[list[str]] = [[], [], []]
    for sites in searches:
        for i, site in enumerate(sites.values()):
            parts[3 * i // len(sites)].append(site["criterion"])
    parts.append([name for part in parts for name in part])
    for name in criteria:
        yield (name, *(f"{part.count(name)} of {len(part)}" for part in parts))
