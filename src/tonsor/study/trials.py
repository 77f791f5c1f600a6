"""Many runs with a folder each: a trial is done when its result is there, whatever else happens.

Several processes, or several commands on one folder, share the trials among them: a trial that
somebody is at is left to them, and one whose process has died is taken up again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tonsor.errors import StoppedError, TrainError
from tonsor.files import replacing

RESULT = "result.json"
_PATIENCE = 10  # seconds for a process to end in


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a study: the name of its folder, and what is special about it."""

    key: str
    settings: Mapping[str, Any]


Work = Callable[[Any, Trial, Path], dict[str, Any]]
"""From what all trials share, a trial and its folder to its result, as plain data."""


def run_trials(
    work: Work,
    shared: Any,
    trials: Sequence[Trial],
    folder: Path,
    *,
    processes: int = 1,
    quiet: bool = False,
) -> dict[str, dict[str, Any]]:
    """Run what is not done yet, and return all results by the key of their trial.

    Ctrl-C loses at most what has not been saved of the trials at work; the same call goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = [t for t in trials if not (folder / t.key / RESULT).exists()]
    try:
        with _bar(len(trials), len(trials) - len(todo), quiet) as advance:
            if processes > 1 and len(todo) > 1:
                _in_pool(work, shared, todo, folder, processes, advance)
            else:
                for trial in todo:
                    advance(trial.key, _one(work, shared, trial, folder))
    except KeyboardInterrupt:
        message = f"stopped; the same command goes on with what is in '{folder}'"
        raise StoppedError(message) from None
    return results(trials, folder)


def results(trials: Sequence[Trial], folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results that are there."""
    found = {}
    for trial in trials:
        path = folder / trial.key / RESULT
        if not path.exists():
            continue
        data = json.loads(path.read_text("utf-8"))
        if data["settings"] != json.loads(json.dumps(dict(trial.settings))):
            message = (
                f"'{path}' is of a trial with other settings, "
                f"{_difference(data['settings'], trial.settings)}; use another folder for this one"
            )
            raise TrainError(message)
        found[trial.key] = data
    return found


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    names = [n for n in {**there, **here} if there.get(n) != here.get(n)]
    return ", ".join(f"{n}={there.get(n)!r} instead of {here.get(n)!r}" for n in names)


def _in_pool(
    work: Work,
    shared: Any,
    todo: Sequence[Trial],
    folder: Path,
    processes: int,
    advance: Callable[[str, bool], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // processes)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (threads,)) as pool:
        futures = [pool.submit(_told, (work, shared, trial, folder)) for trial in todo]
        try:
            for future in as_completed(futures):
                advance(*future.result())
        except BaseException as error:  # whatever ends this ends the trials at work
            pool.shutdown(wait=False, cancel_futures=True)
            ours = set(multiprocessing.active_children()) - others
            for child in ours:
                child.terminate()
            for child in ours:
                child.join(_PATIENCE)
            if isinstance(error, BrokenProcessPool):
                message = (
                    f"a process that ran a trial was killed, maybe for want of memory; what was "
                    f"done is in '{folder}', and the same command goes on with the rest"
                )
                raise TrainError(message) from error
            raise


def _told(call: tuple[Work, Any, Trial, Path]) -> tuple[str, bool]:
    return call[2].key, _one(*call)


def _one(work: Work, shared: Any, trial: Trial, folder: Path) -> bool:
    """Run a trial, unless another process is at it; say whether it is done."""
    mine = folder / trial.key
    mine.mkdir(parents=True, exist_ok=True)
    with _claimed(mine) as free:
        if not free:
            return False
        if not (mine / RESULT).exists():
            found = work(shared, trial, mine)
            with replacing(mine / RESULT) as part:
                data = {"key": trial.key, "settings": dict(trial.settings), **found}
                part.write_text(json.dumps(data) + "\n", "utf-8")
        return True


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Hold a lock that the system takes back when this process ends, however it does."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


@contextlib.contextmanager
def _bar(total: int, done: int, quiet: bool) -> Iterator[Callable[[str, bool], None]]:
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda key, done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("trials", total=total, completed=done)

        def advance(key: str, done: bool) -> None:
            bar.update(task, advance=1, description=key if done else f"{key} (elsewhere)")

        yield advance
