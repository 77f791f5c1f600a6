"""Cut every group alone at several fractions, and judge what is left."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Combine, Scores, score
from tonsor.criteria.stream import Loss
from tonsor.errors import SelectionError, TrainError
from tonsor.graph.clone import named_tensors
from tonsor.graph.inputs import tensors_in
from tonsor.select.names import Named
from tonsor.sensitivity.bench import Bench, one_pass
from tonsor.sensitivity.book import Book
from tonsor.sensitivity.cuts import Bundle, all_cuts, check_fractions
from tonsor.sensitivity.judge import Judge, top_one
from tonsor.sensitivity.result import Reading, Sensitivity
from tonsor.sensitivity.workers import Measured, measured_by
from tonsor.train.checkpoint import digest_of
from tonsor.train.evaluate import Evaluation

FRACTIONS = (0.9, 0.75, 0.5, 0.25, 0.1)


def sensitivity(
    anatomy: Anatomy,
    batches: Iterable[Any],
    *,
    by: str | Scores = "l1",
    fractions: Sequence[float] = FRACTIONS,
    combine: Combine = "mean",
    score_batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    groups: Iterable[Named] | None = None,
    judge: Judge | None = None,
    processes: int = 1,
    memory: int = 2**30,
    folder: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Sensitivity:
    """Find out how much each group matters: cut it alone at each fraction, and judge the model.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> batches = [(torch.randn(32, 8), torch.randint(4, (32,)))]
    >>> found = sensitivity(tonsor.inspect(net, torch.randn(2, 8)), batches, fractions=(0.5,))
    >>> [(row.group, row.kept, row.judged.total) for row in found.rows]
    [('0.weight[0]', 8, 32)]

    `batches` are for judging: validation images, as `Batches` or a list or loader of `(inputs,
    target)` that can be gone through again and again. The pieces that go are the lowest by the
    criterion `by`, which sees `score_batches` and `loss` if it looks at data. `groups` are names,
    modules or patterns as in `plan(ratios=...)`; all that may be cut if not said. `judge(output,
    target)` returns how many are right, the sum of the losses, and of how many.

    The model is not touched. What it computes before the first operator that a cut touches is
    computed once for all cuts of a group. Held at a time are: one cut model for each fraction,
    which shares with the model what is not cut; what is still to be read there of one minibatch,
    twice; and the same of more minibatches, to start the next group from, up to `memory` bytes.

    With `folder` each row is written down as soon as it is known, and `resume=True` goes on after
    any end. `processes` share out the groups and the threads; each holds a copy of the model and
    of the data.
    """
    fractions = check_fractions(fractions)
    if type(processes) is not int or processes < 1:
        message = f"processes must be a whole number of at least 1, got {processes!r}"
        raise SelectionError(message)
    if any(p.is_meta for p in anatomy.parameters.values()):
        message = "the model is on the meta device and has no weights to judge; load it first"
        raise TrainError(message)
    first = _first(batches)
    model, judging = anatomy.model, judge or top_one
    scores = by if isinstance(by, Scores) else score(
        anatomy, by, combine=combine, batches=score_batches, loss=loss, quiet=quiet
    )  # fmt: skip
    bundles, skipped = all_cuts(anatomy, scores, fractions, groups)
    about = _about(model, scores, bundles, batches, first, judging)
    book = Book(folder, about, resume=resume)
    bench = Bench(model, batches, judging, memory)
    notes: list[str] = []
    with _resumable(book):
        if book.base is None:
            book.set_base(bench.base())
        base = book.base
        assert base is not None
        todo = [left for bundle in bundles if (left := _left(bundle, book)).asked]
        with _bar(bundles, todo, quiet) as advance:
            for place, (judged, note) in _measured(bench, todo, processes, memory, advance):
                for row in _rows(todo[place], base, judged):
                    book.add(row)
                if note:
                    notes.append(f"{todo[place].name} was measured without shortcuts: {note}")
    rows = [book.rows[b.name, f] for b in bundles for f, _ in b.asked]
    together = {b.name: b.names[1:] for b in bundles if len(b.names) > 1}
    return Sensitivity(scores.by, base, tuple(rows), skipped, together, tuple(sorted(notes)))


def _first(batches: Iterable[Any]) -> Any:
    """Return the first minibatch, after checking that there can be a second pass."""
    kind = type(batches).__name__
    try:
        once = iter(one_pass(batches))
    except TypeError:
        message = f"batches must be an iterable of (inputs, target), got a {kind}"
        raise TrainError(message) from None
    if once is batches:
        message = (
            f"batches is a {kind}, which can be gone through only once, and every cut needs it "
            "anew; give a list of it, list(batches), or a loader"
        )
        raise TrainError(message)
    for batch in once:
        return batch
    message = "batches is empty, so nothing can be judged; give at least one minibatch"
    raise TrainError(message)


def _about(
    model: nn.Module,
    scores: Scores,
    bundles: Sequence[Bundle],
    batches: Any,
    first: Any,
    judge: Judge,
) -> dict[str, Any]:
    """Say all that decides what comes out, as plain data."""
    kept = hashlib.sha256(repr([b.trials for b in bundles]).encode()).hexdigest()[:16]
    return {
        "model": {"class": type(model).__name__, "weights": digest_of(named_tensors(model))},
        "cuts": {b.name: str([f for f, _ in b.asked]) for b in bundles},
        "by": {"criterion": scores.by, "digest of what stays": kept},
        "data": {
            "minibatches": str(len(batches) if isinstance(batches, Sized) else "unknown"),
            "first": digest_of(tensors_in(first)),
        },
        "judge": getattr(judge, "__qualname__", type(judge).__qualname__),
    }


def _left(bundle: Bundle, book: Book) -> Bundle:
    """Return the cuts of a group that are not in the book."""
    asked = [(f, t) for f, t in bundle.asked if (bundle.name, f) not in book.rows]
    places = sorted({t for _, t in asked if t >= 0})
    return replace(
        bundle,
        asked=tuple((f, places.index(t) if t >= 0 else -1) for f, t in asked),
        trials=tuple(bundle.trials[t] for t in places),
    )


def _measured(
    bench: Bench, todo: Sequence[Bundle], processes: int, memory: int, advance: Any
) -> Iterator[tuple[int, Measured]]:
    if processes > 1 and len(todo) > 1:
        model, batches, judge = bench.model, bench.batches, bench.judge
        for place, found in measured_by(processes, model, batches, judge, memory, todo):
            advance(len(todo[place].asked))
            yield place, found
        return
    steps = len(bench.batches) if isinstance(bench.batches, Sized) else None
    for place, bundle in enumerate(todo):
        part = len(bundle.asked) / steps if steps else 0
        found = bench.measure(bundle, lambda part=part: advance(part))
        yield place, found
        advance(len(bundle.asked) if not steps else 0)


def _rows(bundle: Bundle, base: Evaluation, judged: Sequence[Evaluation]) -> Iterator[Reading]:
    for fraction, place in bundle.asked:
        if place < 0:  # so small that this fraction of it is all of it
            yield Reading(bundle.name, fraction, bundle.size, bundle.size, base, 0, 0)
            continue
        trial = bundle.trials[place]
        yield Reading(
            bundle.name, fraction, trial.kept, bundle.size, judged[place], trial.macs, trial.params
        )


@contextmanager
def _resumable(book: Book) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as end:
        if book.folder is not None:
            end.add_note(f"{len(book.rows)} rows are in '{book.folder}'; go on with resume=True")
        raise


@contextmanager
def _bar(bundles: Sequence[Bundle], todo: Sequence[Bundle], quiet: bool) -> Iterator[Any]:
    """Show how many cuts are measured, where somebody watches."""
    console = Console(file=sys.stderr)
    if quiet or not console.is_terminal:
        yield lambda amount: None
        return
    total = sum(len(b.asked) for b in bundles)
    done = total - sum(len(b.asked) for b in todo)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("cuts", total=total, completed=done)
        yield lambda amount: bar.advance(task, amount)
