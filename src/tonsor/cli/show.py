"""How the commands write: tables, the line that says what is going on, and errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE = 10_000  # what is piped on is never wrapped or shortened


def console(*, error: bool = False) -> Console:
    """Return a console that writes names as they are: `weight[0]` is no markup."""
    out = Console(stderr=error, markup=False, highlight=False, emoji=False)
    if not out.is_terminal:
        out.width = _WIDE
    return out


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is going on while it does, where somebody is watching."""
    with console(error=True).status(f"{text} ..."):  # shows nothing where nobody is
        yield


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", numbers: int = 0
) -> None:
    """Print a table, if it has rows; `numbers` is the first of the columns that hold numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        right = bool(numbers) and i >= numbers
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    if table.row_count:
        console().print(table)


def show(text: object, style: str = "") -> None:
    """Print text as it is."""
    console().print(Text(str(text)), style=style or None)


def show_json(data: Any) -> None:
    """Print data as JSON, with nothing around it."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def complain(error: Exception) -> None:
    """Print what went wrong, in words."""
    console(error=True).print(Text.assemble(("error: ", "bold red"), str(error)))
