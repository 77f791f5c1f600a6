"""Tables of studies as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, with all columns but the first to the right.

    >>> table(("what", "how much"), [("x", "1")])
    ['| what | how much |', '|---|--:|', '| x | 1 |']
    """
    marks = "|".join(["---", *["--:"] * (len(header) - 1)])
    return [f"| {' | '.join(header)} |", f"|{marks}|", *(f"| {' | '.join(r)} |" for r in rows)]
