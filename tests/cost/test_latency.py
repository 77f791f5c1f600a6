"""What a timing says about the models, and what it leaves as it was."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from tonsor.cost.latency import measure
from tonsor.errors import TonsorError


class Sleeper(nn.Module):
    def __init__(self, seconds: float, log: list[str], name: str) -> None:
        super().__init__()
        self.seconds, self.log, self.name = seconds, log, name
        self.inner = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.log.append(self.name)
        time.sleep(self.seconds)
        return x


def test_the_slower_model_is_the_slower_one() -> None:
    log: list[str] = []
    models = {"slow": Sleeper(0.02, log, "slow"), "quick": Sleeper(0.005, log, "quick")}
    models["slow"].inner.eval()
    threads = torch.get_num_threads()
    found = measure(models, torch.zeros(4, 3), rounds=5)
    assert found["slow"].median_ms >= 20
    assert found["slow"].low_ms <= found["slow"].median_ms <= found["slow"].high_ms
    assert found.speedup("quick", "slow") > 1.5
    assert (
        found.conditions == "eager, cpu, float32, batch 4, 1 thread, medians of 5 rounds in turns"
    )
    assert torch.get_num_threads() == threads
    assert models["slow"].training
    assert not models["slow"].inner.training


def test_models_take_turns_and_each_goes_first_as_often() -> None:
    log: list[str] = []
    measure({n: Sleeper(0.0, log, n) for n in "ab"}, torch.zeros(1), rounds=6)
    pairs = ["".join(log[i : i + 2]) for i in range(0, len(log), 2)]
    assert set(pairs) == {"ab", "ba"}
    assert abs(pairs.count("ab") - pairs.count("ba")) <= 1


def test_a_model_that_fails_leaves_everything_as_it_was() -> None:
    broken = nn.Linear(3, 3)
    threads = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="shapes"):
        measure({"broken": broken}, torch.zeros(2, 4), threads=1 if threads != 1 else 2)
    assert broken.training
    assert torch.get_num_threads() == threads


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(TonsorError, match="at least one"):
        measure({}, torch.zeros(1))
