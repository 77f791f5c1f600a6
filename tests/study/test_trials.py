"""Trials are done once, shared out, and gone on with, whatever happened to them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tonsor.errors import StoppedError, TrainError
from tonsor.study.trials import RESULT, Trial, results, run_trials

TRIALS = [Trial(f"t{i}", {"number": i}) for i in range(6)]


def doubled(shared: int, trial: Trial, folder: Path) -> dict[str, Any]:
    with (folder / "times").open("a") as file:
        file.write("x")
    return {"value": shared * trial.settings["number"], "by": os.getpid()}


def stopping(shared: int, trial: Trial, folder: Path) -> dict[str, Any]:
    if trial.key == "t3":
        raise KeyboardInterrupt
    return doubled(shared, trial, folder)


def failing(shared: int, trial: Trial, folder: Path) -> dict[str, Any]:
    if trial.key == "t1":
        if shared:
            os.kill(os.getpid(), signal.SIGKILL)
        message = "it can't"
        raise TrainError(message)
    return doubled(shared, trial, folder)


def test_each_trial_is_run_once_however_often_it_is_asked_for(tmp_path: Path) -> None:
    for _ in range(2):
        found = run_trials(doubled, 2, TRIALS, tmp_path, quiet=True)
        assert {k: r["value"] for k, r in found.items()} == {f"t{i}": 2 * i for i in range(6)}
    assert all((tmp_path / t.key / "times").read_text() == "x" for t in TRIALS)


def test_a_stop_keeps_what_is_done_and_the_rest_is_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="goes on"):
        run_trials(stopping, 2, TRIALS, tmp_path, quiet=True)
    assert sorted(results(TRIALS, tmp_path)) == ["t0", "t1", "t2"]
    assert len(run_trials(doubled, 2, TRIALS, tmp_path, quiet=True)) == 6
    assert (tmp_path / "t0" / "times").read_text() == "x"


def test_several_processes_share_the_trials(tmp_path: Path) -> None:
    found = run_trials(doubled, 3, TRIALS, tmp_path, processes=2, quiet=True)
    assert {k: r["value"] for k, r in found.items()} == {f"t{i}": 3 * i for i in range(6)}
    assert os.getpid() not in {r["by"] for r in found.values()}


@pytest.mark.parametrize(("killed", "says"), [(0, "it can't"), (1, "killed.*goes on")])
def test_a_process_that_fails_or_dies_ends_the_study_at_once(
    tmp_path: Path, killed: int, says: str
) -> None:
    with pytest.raises(TrainError, match=says):
        run_trials(failing, killed, TRIALS[:3], tmp_path, processes=2, quiet=True)
    found = run_trials(doubled, 2, TRIALS[:3], tmp_path, quiet=True)
    assert len(found) == 3


def test_a_trial_that_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "t1").mkdir()
    with (tmp_path / "t1" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sorted(run_trials(doubled, 2, TRIALS[:3], tmp_path, quiet=True)) == ["t0", "t2"]
    assert sorted(run_trials(doubled, 2, TRIALS[:3], tmp_path, quiet=True)) == ["t0", "t1", "t2"]


def test_a_trial_whose_process_was_killed_is_taken_up_again(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tonsor.study.trials import *\n"
        "def work(s, t, f):\n    (f / 'begun').touch(); time.sleep(60)\n"
        "run_trials(work, 0, [Trial('t0', {'number': 0})], Path(sys.argv[1]), quiet=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        for _ in range(600):
            if (tmp_path / "t0" / "begun").exists():
                break
            time.sleep(0.1)
        assert run_trials(doubled, 2, TRIALS[:1], tmp_path, quiet=True) == {}
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(run_trials(doubled, 2, TRIALS[:1], tmp_path, quiet=True)) == ["t0"]


def test_results_of_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    run_trials(doubled, 2, TRIALS[:2], tmp_path, quiet=True)
    other = [TRIALS[0], Trial("t1", {"number": 7})]
    with pytest.raises(TrainError, match="number=1 instead of 7"):
        run_trials(doubled, 2, other, tmp_path, quiet=True)


def test_a_result_is_plain_json_with_its_settings(tmp_path: Path) -> None:
    run_trials(doubled, 2, TRIALS[:1], tmp_path, quiet=True)
    data = json.loads((tmp_path / "t0" / RESULT).read_text("utf-8"))
    assert data["key"] == "t0"
    assert data["settings"] == {"number": 0}
