"""The tables of SPP's supplement, each beside what was measured or simulated here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tonsor.methods.spp.table import BASELINE, INTERVAL, SPEEDUPS, TABLE1, Row, Tables
from tonsor.study.markdown import table
from tonsor.study.paired import Figure

_LETTERS = {"interval": "t", "most": "A", "centre": "u"}


def paper(
    simulated: Tables,
    measured: Mapping[str, Mapping[float, Figure]],
    whole: Figure,
    iterations: Mapping[float, float],
    interval: int,
    steps: int,
) -> Iterator[str]:
    """Yield the lines of the three tables.

    `measured` is the accuracy by norm (l1, l2) and speed-up, `iterations` how many SPP took at each
    speed-up, with so many (`interval`) from one update to the next and so many `steps` in all.
    """
    yield from ("### Table 1 of the paper: the norm of a column", "")
    yield from table1(measured, whole)
    yield from (
        "",
        f"- In brackets: less what the network has before pruning, {BASELINE} % in the paper.",
        f"- Ours: the mean over the seeds, after {steps:,} iterations of training in all. The "
        "paper needs 13,300 at 4x until the pruning is done, and retrains after it.",
        "",
    )
    yield from ("### Tables 2 and 3 of the paper: how long it takes at 4x", "")
    header = ("setting", "paper, k iterations", "simulated, k", "paper, accuracy")
    yield from table(header, [_cells(row) for row in simulated.rows])
    yield ""
    yield from (f"- {note[0].upper()}{note[1:]}." for note in simulated.notes)
    for speedup, took in iterations.items():
        updates = took / interval
        yield (
            f"- Measured at {speedup:g}x: {took:,.0f} iterations, which are {updates:.0f} updates; "
            f"with the paper's t = {INTERVAL} they would be {updates * INTERVAL / 1000:.1f}k."
        )


def table1(measured: Mapping[str, Mapping[float, Figure]], whole: Figure) -> list[str]:
    """Return the lines of Table 1, the paper's and ours for each norm."""
    there = sorted({*SPEEDUPS, *(s for by in measured.values() for s in by)})
    rows: list[tuple[str, ...]] = []
    for norm, printed in TABLE1.items():
        known = dict(zip(SPEEDUPS, printed, strict=True))
        theirs = [
            f"{known[s]:.1f} ({known[s] - BASELINE:+.1f})" if s in known else "" for s in there
        ]
        mine = measured.get(norm, {})
        ours = [
            f"{mine[s].percent} ({100 * (mine[s].mean - whole.mean):+.1f})" if s in mine else ""
            for s in there
        ]
        rows += [(f"{norm.upper()}, paper", *theirs), (f"{norm.upper()}, ours", *ours)]
    return table(("accuracy", *(f"{s:g}x" for s in there)), rows)


def _cells(row: Row) -> tuple[str, ...]:
    printed = row.printed
    return (
        f"{_LETTERS[printed.name]} = {printed.value:g}", f"{printed.thousands:g}",
        f"{row.mean:.1f}", f"{printed.accuracy:.1f}",
    )  # fmt: skip
