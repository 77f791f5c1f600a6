"""Meeting a latency by measuring: with a simulated clock, and on a real network."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.laws.networks import examples
from tonsor.cost.bench import Bench
from tonsor.cost.engines.ready import Ready
from tonsor.cost.latency import Latency, timing
from tonsor.errors import BudgetError
from tonsor.graph.inputs import Inputs
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.make import plan
from tonsor.select.timed import plan_timed

from .nets import anatomy_of, drawn

WHOLE_MS = 10.0
FLOOR = 0.3


@dataclass(frozen=True)
class Simulated(Bench):
    """A machine on which a model takes a fixed time, and some for each parameter."""

    noise: float = 0.0

    def ready(self, model: Any, inputs: Inputs) -> Ready:
        return Ready(lambda: model, inputs, "eager", 1, "float32")

    def measure(self, models: Mapping[str, Any], *_: Any, **__: Any) -> Latency:
        sizes = {n: _parameters(r.run()) for n, r in models.items()}
        whole = sizes["whole"]
        busy = [1 + self.noise * random.random() for _ in range(self.rounds)]
        samples = {
            n: [
                WHOLE_MS * (FLOOR + (1 - FLOOR) * size / whole) * b * _jitter(self.noise / 10)
                for b in busy
            ]
            for n, size in sizes.items()
        }
        timings = {n: timing(s) for n, s in samples.items()}
        return Latency(timings, self.rounds, 1, 1, "cpu", "float32", samples=samples)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _jitter(noise: float) -> float:
    return 1 + random.uniform(-noise, noise)


def timed(net: str, budget: str | Budget, bench: Bench, floor: float = 0.1) -> Plan:
    anatomy = anatomy_of(net)
    scores = drawn(anatomy, 0)
    return plan_timed(
        anatomy, budget, bench=bench, quiet=True,
        build=lambda b: plan(anatomy, b, by=scores, floor=floor),
    )  # fmt: skip


@examples(25)
@given(
    st.sampled_from(["resnet20", "convnet"]), st.floats(0.25, 0.99), st.booleans(),
    st.sampled_from([0.0, 0.5, 3.0]),
)  # fmt: skip
def test_what_was_measured_holds_or_it_says_what_is_reachable(
    net: str, share: float, in_ms: bool, noise: float
) -> None:
    bench = Simulated(noise=noise if not in_ms else 0.0)
    budget = Budget("latency", amount=share * WHOLE_MS) if in_ms else Budget("latency", kept=share)
    refused, made = None, {}
    try:
        made = timed(net, budget, bench).made_by
    except BudgetError as error:
        refused = error
    if refused is not None:
        assert refused.minimum is not None
        assert refused.minimum > share
        assert "can't be met" in str(refused)
        return
    assert made["met"]
    assert made["reached"] <= made["limit"] * (1 + 1e-9)
    assert made["ratio"] <= share * (1 + 1e-9)
    assert made["budget"] == str(budget)
    if noise == 0.0:
        assert made["ratio"] >= 0.9 * share  # no slimmer than need be


def test_the_plan_says_how_it_was_measured_and_survives_being_saved() -> None:
    decided = timed("resnet20", "latency=70%", Simulated())
    made = decided.made_by
    assert made["through"].startswith("macs=")
    assert made["conditions"].startswith("eager, cpu, float32, batch 1, 1 thread")
    assert made["interval"][0] <= made["ratio"] <= made["interval"][1]
    assert made["whole"] == WHOLE_MS
    assert made["by"] == "drawn 0"
    assert "least" not in made  # that was counted, not measured
    assert plan_from_json(plan_to_json(decided)).made_by == made


def test_what_the_refusal_proposes_can_be_had() -> None:
    with pytest.raises(BudgetError) as caught:
        timed("resnet20", "latency=10%", Simulated(), floor=0.5)
    proposed = str(caught.value).partition("Ask for ")[2].partition(";")[0]
    assert timed("resnet20", proposed, Simulated(), floor=0.5).made_by["met"]
    with pytest.raises(BudgetError, match="the slimmest model, macs=") as caught:
        timed("resnet20", "latency=1ms", Simulated(), floor=0.5)
    proposed = str(caught.value).partition("Ask for ")[2].partition(";")[0]
    assert timed("resnet20", proposed, Simulated(), floor=0.5).made_by["met"]


@pytest.mark.parametrize("budget", ["latency=100%", "latency=11ms"])
def test_a_model_that_is_quick_enough_stays_whole(budget: str) -> None:
    decided = timed("resnet20", budget, Simulated())
    assert not decided.keep
    assert decided.made_by["met"]
    assert decided.made_by["measured_plans"] == 1


def test_an_earlier_plan_counts_as_gone() -> None:
    anatomy, scores = anatomy_of("resnet20"), drawn(anatomy_of("resnet20"), 0)
    earlier = plan(anatomy, "macs=60%", by=scores)
    decided = plan_timed(
        anatomy, "latency=60%", bench=Simulated(), quiet=True,
        build=lambda b: plan(anatomy, b, by=scores, after=earlier),
    )  # fmt: skip
    for name, kept in decided.keep.items():
        assert set(kept) <= set(earlier.keep.get(name, range(10**6)))
    assert decided.made_by["ratio"] <= 0.6


def test_a_real_network_meets_a_real_clock() -> None:
    bench = Bench(batch=8, rounds=5, within=0.1, at_most=10)
    made = timed("resnet20", "latency=80%", bench).made_by
    assert made["reached"] <= made["limit"]
    assert made["ratio"] <= 0.8
    assert "batch 8" in made["conditions"]
