"""The demo leaves what it says, and its clock is fair."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import tonsor
from tonsor.demo import SmallResNet, measure, run


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, tonsor.Report]:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    text = io.StringIO()
    report = run(folder, Console(file=text, width=200, markup=False))
    return folder, text.getvalue(), report


def test_the_demo_keeps_half_and_proves_it(shown: tuple[Path, str, tonsor.Report]) -> None:
    _, text, report = shown
    before, after = report.macs
    assert 0.48 * before < after <= 0.5 * before
    assert report.proof is not None
    assert str(report.proof) in text
    assert all(len(kept) % 8 == 0 for kept in report.plan.keep.values())


def test_the_demo_shows_each_step(shown: tuple[Path, str, tonsor.Report]) -> None:
    _, text, _ = shown
    places = [text.index(f"{i}. ") for i in range(1, 6)]
    assert places == sorted(places)
    assert "stem.weight[0]" in text
    assert "may be cut" in text
    assert "computes the same to the last bit" in text


def test_the_demo_leaves_its_results(shown: tuple[Path, str, tonsor.Report]) -> None:
    folder, _, report = shown
    names = {"slim.tonsor", "plan.json", "anatomy.json", "summary.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert tonsor.load_plan(folder / "plan.json") == report.plan
    assert json.loads((folder / "anatomy.json").read_text("utf-8"))["macs"] == report.macs[0]
    slim = tonsor.load(folder / "slim.tonsor", SmallResNet())
    assert sum(p.numel() for p in slim.parameters()) == report.params[1]
    summary = (folder / "summary.txt").read_text("utf-8")
    for said in ("batch 16", "1 thread", "torch 2", "seed 0", "times as fast"):
        assert said in summary


class Sleeper(nn.Module):
    """Takes a known time, and writes down when it was called and on how many threads."""

    def __init__(self, name: str, seconds: float, calls: list[tuple[str, int]]) -> None:
        super().__init__()
        self.name, self.seconds, self.calls = name, seconds, calls

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.name, torch.get_num_threads()))
        time.sleep(self.seconds)
        return x


def test_two_models_are_timed_in_turns() -> None:
    calls: list[tuple[str, int]] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    slow, fast = Sleeper("slow", 0.02, calls), Sleeper("fast", 0.002, calls)
    latency = measure(slow, fast, torch.zeros(4, 1), rounds=5)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == 2
    pairs = [{calls[i][0], calls[i + 1][0]} for i in range(0, len(calls), 2)]
    assert pairs == [{"slow", "fast"}] * 8
    assert {name for name, _ in calls[::2]} == {"slow", "fast"}, "the order takes turns too"
    assert {t for _, t in calls} == {1}
    assert latency.before_ms >= 20
    assert latency.after_ms >= 2
    assert latency.before_ms > latency.after_ms
    assert "batch 4, 1 thread, medians of 5 runs" in str(latency)
