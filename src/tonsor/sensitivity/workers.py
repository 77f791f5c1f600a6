"""Several processes that measure groups, each with its share of the threads."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import nn

from tonsor.errors import TrainError
from tonsor.sensitivity.bench import Bench
from tonsor.sensitivity.cuts import Bundle
from tonsor.sensitivity.judge import Judge
from tonsor.train.evaluate import Evaluation

Measured = tuple[list[Evaluation], str]


@dataclass(slots=True)
class _Worker:
    process: Any
    line: Connection
    busy: int | None = None


def measured_by(
    processes: int,
    model: nn.Module,
    batches: Any,
    judge: Judge,
    memory: int,
    bundles: Sequence[Bundle],
) -> Iterator[tuple[int, Measured]]:
    """Yield the place of each group and what was measured of it, as they are done."""
    count = min(processes, len(bundles))
    load = _packed(model=model, batches=batches, judge=judge)
    threads = max(1, torch.get_num_threads() // count)
    workers = [_started(load, memory // count, threads) for _ in range(count)]
    waiting = iter(range(len(bundles)))
    try:
        for worker in workers:
            _hand(worker, next(waiting), bundles)
        lost = None
        while any(w.busy is not None for w in workers):
            ready = wait([w.line for w in workers if w.busy is not None])
            for worker in [w for w in workers if w.line in ready]:
                place, worker.busy = worker.busy, None
                assert place is not None
                try:
                    answer = worker.line.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    lost = place, worker.process.exitcode
                    continue
                if isinstance(answer, Exception):
                    raise answer
                yield place, answer
                following = None if lost is not None else next(waiting, None)
                if following is not None:
                    _hand(worker, following, bundles)
        if lost is not None:
            raise _gone(bundles[lost[0]].name, lost[1])
    finally:
        for worker in workers:
            worker.line.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


def _gone(group: str, code: int | None) -> TrainError:
    how = f"killed by signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    message = (
        f"a process that measured '{group}' is gone ({how}), maybe for lack of memory: use fewer "
        "processes or smaller minibatches. A script that uses processes has to start under "
        "`if __name__ == '__main__':`. What was measured is kept if there is a folder; "
        "go on with resume=True."
    )
    return TrainError(message)


def _packed(**parts: Any) -> bytes:
    for name, part in parts.items():
        try:
            pickle.dumps(part)
        except Exception as error:
            message = (
                f"{name} can't be sent to another process ({type(error).__name__}: {error}); "
                "use processes=1"
            )
            raise TrainError(message) from error
    return pickle.dumps(parts)


def _started(load: bytes, memory: int, threads: int) -> _Worker:
    spawn = get_context("spawn")
    line, other = spawn.Pipe()
    process = spawn.Process(target=_work, args=(other, load, memory, threads), daemon=True)
    process.start()
    other.close()
    return _Worker(process, line)


def _hand(worker: _Worker, place: int, bundles: Sequence[Bundle]) -> None:
    worker.busy = place
    try:
        worker.line.send(bundles[place])
    except OSError:
        return  # it is gone, which shows when its answer is waited for


def _work(line: Connection, load: bytes, memory: int, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process hears it, and ends this one
    torch.set_num_threads(threads)
    parts = pickle.loads(load)
    bench = Bench(parts["model"], parts["batches"], parts["judge"], memory)
    while True:
        try:
            bundle = line.recv()
        except EOFError:
            return
        try:
            line.send(bench.measure(bundle, lambda: None))
        except Exception as error:  # noqa: BLE001  raised again in the first process
            line.send(_sendable(error))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001  an error may hold anything
        return TrainError(f"{type(error).__name__}: {error}")
    return error
