"""What was measured outlives the process that measured it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.sensitivity.nets import made, validation
from tonsor.errors import CheckpointError, TrainError
from tonsor.sensitivity import Sensitivity, sensitivity
from tonsor.sensitivity.judge import top_one
from tonsor.train import Batches

EXAMPLE = torch.randn(2, 1, 8, 8)
OPTIONS: dict[str, Any] = {"fractions": (0.5, 0.25), "quiet": True}


def measure(folder: Path | None = None, model: nn.Module | None = None, **more: Any) -> Sensitivity:
    anatomy = tonsor.inspect(made("residual") if model is None else model, EXAMPLE)
    batches = more.pop("batches", None) or validation()
    return sensitivity(anatomy, batches, folder=folder, **{**OPTIONS, **more})


class Ended:
    """A judge that is interrupted after so many minibatches."""

    __qualname__ = "top_one"

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, output: Any, target: Any) -> tuple[int, float, int]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return top_one(output, target)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    wanted = measure()
    with pytest.raises(KeyboardInterrupt) as end:
        measure(tmp_path, judge=Ended(3 + 2 * 6 + 1))
    assert "4 rows are in" in end.value.__notes__[0]
    counted = Ended(10**6)
    found = measure(tmp_path, judge=counted, resume=True)
    assert found == wanted
    assert 10**6 - counted.left == 6 * (len(wanted.groups) - 2)  # nothing is measured twice
    assert measure(tmp_path, judge=Ended(0), resume=True) == wanted


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path, cut: int) -> None:
    wanted = measure(tmp_path)
    path = tmp_path / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert measure(tmp_path, resume=True) == wanted
    assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_told(tmp_path: Path) -> None:
    measure(tmp_path)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2][:9] + "\n", *lines[3:]]))
    with pytest.raises(CheckpointError, match=r"line 3 of .* is damaged"):
        measure(tmp_path, resume=True)


def other_weights() -> nn.Module:
    model = made("residual")
    assert isinstance(model.linear, nn.Linear)
    model.linear.bias.data[0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": other_weights()}, "another model"),
        ({"by": "l2"}, "criterion was 'l1', now it is 'l2'"),
        ({"fractions": (0.5,)}, "another cuts"),
        ({"groups": ["left.0"]}, "another cuts"),
        ({"batches": validation(200)}, "another data"),
        ({"judge": lambda o, t: top_one(o, t)}, "another judge"),
    ],
)
def test_going_on_with_something_else_is_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    measure(tmp_path)
    before = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match=said):
        measure(tmp_path, resume=True, **changed)
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_folder_is_not_written_over(tmp_path: Path) -> None:
    measure(tmp_path)
    with pytest.raises(TrainError, match="resume=True goes on"):
        measure(tmp_path)
    (tmp_path / "about.json").write_text("[")
    with pytest.raises(CheckpointError, match=r"about\.json.*can't be read"):
        measure(tmp_path, resume=True)


def test_resume_begins_where_there_is_nothing_yet(tmp_path: Path) -> None:
    assert measure(tmp_path / "new", resume=True) == measure()
    lines = (tmp_path / "new" / "rows.jsonl").read_text().splitlines()
    assert "base" in json.loads(lines[0])


# ---------------------------------------------------------------- several processes


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    found = measure(tmp_path, processes=2)
    assert found == measure()
    assert measure(tmp_path, judge=Ended(0), resume=True) == found


class Deadly(nn.Module):
    """A network of which one process dies, when a layer has been cut and a file is there."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = str(file)
        self.layers = nn.ModuleList(nn.Linear(64 if i == 0 else 12, 12) for i in range(6))
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = layer(x).relu()
        middle = self.layers[3]
        assert isinstance(middle, nn.Linear)
        if middle.out_features < 12 and Path(self.file).exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.last(x)


def test_a_killed_process_is_told_and_the_rest_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "now"
    model, folder = Deadly(file), tmp_path / "folder"
    anatomy = tonsor.inspect(model, EXAMPLE)
    batches = validation()
    options: dict[str, Any] = {**OPTIONS, "folder": folder, "processes": 2}
    file.touch()
    with pytest.raises(TrainError, match=r"measured 'layers\.3\.weight.*killed by signal 9"):
        sensitivity(anatomy, batches, **options)
    kept = (folder / "rows.jsonl").read_text().splitlines()
    assert len(kept) >= 1 + 2 * 2
    file.unlink()
    found = sensitivity(anatomy, batches, **{**options, "processes": 1}, resume=True)
    assert (folder / "rows.jsonl").read_text().splitlines()[: len(kept)] == kept
    assert found == sensitivity(anatomy, batches, **OPTIONS)


class Unsendable(Batches):
    """Data that stays where it is."""

    def __reduce__(self) -> Any:
        message = "not me"
        raise TypeError(message)


def test_what_cannot_be_sent_is_named() -> None:
    anatomy = tonsor.inspect(made("residual"), EXAMPLE)
    with pytest.raises(TrainError, match=r"judge can't be sent.*use processes=1"):
        sensitivity(anatomy, validation(), processes=2, judge=lambda o, t: top_one(o, t), **OPTIONS)
    batches = validation()
    batches.__class__ = Unsendable
    with pytest.raises(TrainError, match=r"batches can't be sent.*not me.*use processes=1"):
        sensitivity(anatomy, batches, processes=2, **OPTIONS)
    model = made("residual")
    model.hook = lambda: None  # type: ignore[assignment]
    with pytest.raises(TrainError, match=r"model can't be sent.*use processes=1"):
        sensitivity(tonsor.inspect(model, EXAMPLE), validation(), processes=2, **OPTIONS)


def broken_judge(output: Tensor, target: Tensor) -> tuple[int, float, int]:
    if torch.multiprocessing.current_process().name != "MainProcess":
        message = "the judge gives up"
        raise ValueError(message)
    return top_one(output, target)


@pytest.mark.slow
def test_an_error_in_another_process_comes_through() -> None:
    with pytest.raises(ValueError, match="the judge gives up"):
        measure(processes=2, judge=broken_judge)
