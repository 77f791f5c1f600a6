"""A bar for measurements that take a while."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

Advance = Callable[[str], None]
"""Says that a step is done, and what is to be said from now on (nothing: as before)."""


@contextmanager
def bar(about: str, total: int, *, quiet: bool) -> Iterator[Advance]:
    """Show how far it is, where somebody watches."""
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(about, total=total)

        def advance(text: str) -> None:
            progress.update(task, advance=1, description=text or about)

        yield advance
