"""Runs that are killed, and runs of two processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.train.run import run
from tests.train.small import digits, net
from tonsor.train import Batches, evaluate
from tonsor.train.checkpoint import checkpoints

ROOT = Path(__file__).parents[2]
ALONE = [sys.executable, "-m", "tests.train.run"]
TWO = [
    sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
    "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "tests.train.run",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@contextmanager
def started(command: list[str], *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A run that is killed when it is left, with all that it has started."""
    process = subprocess.Popen(
        [*command, *map(str, arguments)], cwd=ROOT, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def to_the_end(command: list[str], *arguments: object) -> None:
    with started(command, *arguments) as process:
        said = process.communicate(timeout=240)[0].decode()
        assert process.returncode == 0, said


def here(folder: Path, *, plain: bool = False, epochs: int = 3, save_every: int = 1000) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the others have, or the last bits would differ
    try:
        run(folder, plain=plain, resume=False, epochs=epochs, save_every=save_every)
    finally:
        torch.set_num_threads(threads)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def losses(folder: Path) -> torch.Tensor:
    return torch.load(folder / "losses.pt", weights_only=True)


def last_step(folder: Path) -> int:
    found = checkpoints(folder)
    return int(found[-1].stem.split("-")[1]) if found else -1


def kill_again_and_again(command: list[str], times: int, folder: Path, *options: object) -> int:
    """Begin and kill a run, each time at another moment; return how often it was killed."""
    chance, killed, newest = random.Random(time.time_ns()), 0, -1
    for _ in range(times):
        with started(command, folder, "--resume", *options) as process:
            # Wait for a checkpoint of this process, and then for a moment that nobody chose.
            while process.poll() is None and last_step(folder) <= newest:
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.3))
            killed += process.poll() is None
        newest = last_step(folder)
    return killed


def assert_equal(a: Path, b: Path) -> None:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert torch.equal(losses(a), losses(b))


@pytest.mark.parametrize("times", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path: Path, times: int) -> None:
    whole, broken, epochs = tmp_path / "whole", tmp_path / "broken", 20 * times
    here(whole, epochs=epochs, save_every=3)
    options = ("--epochs", epochs, "--save-every", 3)
    killed = kill_again_and_again(ALONE, times, broken, *options)
    to_the_end(ALONE, broken, "--resume", *options)
    assert killed >= times // 2, "the run was over before it could be killed"
    assert_equal(whole, broken)


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    here(one, plain=True)
    to_the_end(TWO, two, "--plain")
    torch.testing.assert_close(losses(two), losses(one), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_are_killed_and_go_on(tmp_path: Path) -> None:
    whole, broken, options = tmp_path / "whole", tmp_path / "broken", ("--epochs", 60)
    to_the_end(TWO, whole, *options)
    assert kill_again_and_again(TWO, 2, broken, *options)
    to_the_end(TWO, broken, "--resume", *options)
    assert_equal(whole, broken)
    model, splits = net(), digits()
    model.load_state_dict(weights(whole))
    batches = Batches(splits.test, size=64, mean=splits.mean, std=splits.std, shuffle=False, seed=0)
    said = json.loads((whole / "result.json").read_text())["final"]
    assert evaluate(model, batches).loss == pytest.approx(said["loss"], rel=1e-5)  # both judged it


@pytest.mark.slow
def test_a_sharded_model_is_taken_down_whole_and_put_back() -> None:
    to_the_end([*TWO[:-1], "tests.train.sharded"])
