"""What a timing says about the models, and what it leaves as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tonsor.cost.bench import Bench
from tonsor.cost.engines.ready import prepare
from tonsor.cost.latency import Latency, Timing, measure
from tonsor.cost.spread import interval_of_median, paired
from tonsor.errors import TonsorError

LOG: list[str] = []


@contextmanager
def logged() -> Iterator[list[str]]:
    LOG.clear()
    yield LOG
    LOG.clear()


class Sleeper(nn.Module):
    def __init__(self, seconds: float, name: str) -> None:
        super().__init__()
        self.seconds, self.name = seconds, name
        self.inner = nn.Dropout()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        LOG.append(self.name)
        self.runs += 1
        self.last = x
        time.sleep(self.seconds)
        return x


def test_the_slower_model_is_the_slower_one() -> None:
    models = {"slow": Sleeper(0.02, "slow"), "quick": Sleeper(0.005, "quick")}
    models["slow"].inner.eval()
    threads = torch.get_num_threads()
    found = measure(models, torch.zeros(4, 3), rounds=5)
    assert found["slow"].median_ms >= 20
    assert found["slow"].low_ms <= found["slow"].median_ms <= found["slow"].high_ms
    assert found.speedup("quick", "slow") > 1.5
    ratio = found.ratio("quick", "slow")
    assert ratio.low <= ratio.median <= ratio.high < 1
    assert (
        found.conditions == "eager, cpu, float32, batch 4, 1 thread, medians of 5 rounds in turns"
    )
    assert torch.get_num_threads() == threads


def test_models_are_left_as_they_were() -> None:
    model = Sleeper(0.002, "a")
    model.inner.eval()
    measure({"a": model}, torch.zeros(1), rounds=1)
    assert model.training
    assert not model.inner.training
    assert model.runs == 0
    assert not hasattr(model, "last")


def test_models_take_turns_and_each_goes_first_as_often() -> None:
    with logged() as log:
        measure({n: Sleeper(0.003, n) for n in "ab"}, torch.zeros(1), rounds=6)
        order = log[-12:]
    pairs = ["".join(order[i : i + 2]) for i in range(0, 12, 2)]
    assert set(pairs) == {"ab", "ba"}
    assert pairs.count("ab") == pairs.count("ba")


def test_what_is_over_at_once_is_repeated_within_a_round() -> None:
    with logged() as log:
        found = measure(
            {"quick": Sleeper(0.0, "q"), "slow": Sleeper(0.004, "s")}, torch.zeros(1), rounds=4
        )
        lengths = [(name, len(list(run))) for name, run in groupby(log)]
    assert max(n for name, n in lengths if name == "q") > 5
    assert lengths[-1][1] * found["quick"].median_ms > 0.5
    assert found["quick"].median_ms < 1 < found["slow"].median_ms


def test_rounds_go_on_until_the_ratio_is_known() -> None:
    models = {"a": Sleeper(0.004, "a"), "b": Sleeper(0.002, "b")}
    sure = measure(models, torch.zeros(1), rounds=3, within=0.9, at_most=50)
    assert sure.rounds == 3
    never = measure(models, torch.zeros(1), rounds=3, within=1e-9, at_most=7)
    assert never.rounds == 7
    assert len(never.samples["a"]) == 7


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


def test_what_is_compared_must_run_in_the_same_way() -> None:
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    runs = {"one": prepare("eager", net, x, 1), "two": prepare("eager", net, x, 2)}
    with pytest.raises(TonsorError, match="'two' is ready for eager with 2 threads"):
        measure(runs)


def test_tokens_are_not_what_is_computed_with() -> None:
    net = nn.Embedding(10, 4, dtype=torch.float64)
    found = measure({"net": net}, torch.zeros(1, 3, dtype=torch.long), rounds=1)
    assert found.dtype == "float64"


def test_a_device_takes_copies() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    found = measure({"net": net}, torch.zeros(2, 4), rounds=1, device="meta")
    assert found.device == "meta"
    assert {t.device.type for t in net.state_dict().values()} == {"cpu"}


# ---------------------------------------------------------------- medians and ratios


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40), st.floats(0.2, 5))
def test_what_slows_a_whole_round_leaves_the_ratio_alone(slow: list[float], times: float) -> None:
    ratio = paired([times * s for s in slow], slow)
    assert ratio.median == pytest.approx(times)
    assert ratio.within == pytest.approx(0, abs=1e-9)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    for n in (6, 15, 40):
        draws = torch.rand(2000, n, generator=generator).pow(3).tolist()
        held = [low <= 0.5**3 <= high for low, high in map(interval_of_median, draws)]
        assert sum(held) / len(held) >= 0.94
        assert sum(held) / len(held) <= 0.995


def test_the_ratio_of_medians_is_not_the_median_of_ratios() -> None:
    found = Latency(
        {"a": Timing(1, 1, 1), "b": Timing(1, 1, 1)}, 3, 1, 1, "cpu", "float32",
        samples={"a": [1.0, 4.0, 9.0], "b": [2.0, 2.0, 18.0]},
    )  # fmt: skip
    assert found.ratio("a", "b").median == 0.5


# ---------------------------------------------------------------- conditions as an object


@given(st.integers(1, 7), st.integers(1, 9))
def test_a_bench_repeats_or_cuts_the_example_to_its_batch(have: int, batch: int) -> None:
    x = torch.arange(have * 2).reshape(have, 2)
    given = Bench(batch=batch).inputs({"x": x, "mask": torch.zeros(20, 2), "scale": 3})
    rows = [i % have for i in range(batch)]
    assert torch.equal(given.kwargs["x"], x[rows])
    assert given.kwargs["mask"].shape == (20, 2)
    assert given.kwargs["scale"] == 3


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"batch": 0}, "batch must be"), ({"threads": 1.5}, "threads"), ({"within": 3}, "within")],
)
def test_a_bench_that_makes_no_sense_is_refused(options: dict, hint: str) -> None:
    with pytest.raises(TonsorError, match=hint):
        Bench(**options)
