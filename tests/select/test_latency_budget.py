"""Budgets that are measured: a fraction of the time, or a time with its unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonsor.errors import BudgetError, SelectionError
from tonsor.select.budget import Budget, as_budget, is_measured, latency, targets


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("latency=70%", Budget("latency", kept=0.7)),
        ("latency=0.7", Budget("latency", kept=0.7)),
        ("latency=12ms", Budget("latency", amount=12)),
        ("Latency = 0.5 s", Budget("latency", amount=500)),
        ("latency=800us", Budget("latency", amount=0.8)),
        ("latency=800µs", Budget("latency", amount=0.8)),
        ("12ms latency", Budget("latency", amount=12)),
    ],
)
def test_a_time_is_read_and_written(text: str, budget: Budget) -> None:
    assert as_budget(text) == budget
    assert as_budget(str(budget)) == budget


@given(st.floats(1e-3, 1e6))
def test_every_time_survives_being_written(milliseconds: float) -> None:
    budget = Budget("latency", amount=milliseconds)
    read = as_budget(str(budget))
    assert read.amount == pytest.approx(milliseconds, rel=1e-14)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("latency=12", "12 what? It takes a unit: us, ms or s"),
        ("latency=12k", "write 'latency=70%', 'latency=12ms'"),
        ("latency=2x", "write 'latency=70%', 'latency=12ms'"),
        ("latency=0%", "above 0 and at most 1"),
        ("latency=170%", "above 0 and at most 1"),
        ("macs=12ms", "can't read the budget"),
        ("spp_speedup=2s", "can't read the budget"),
        ("latensy=3ms", "did you mean 'latency'?"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(text: str, hint: str) -> None:
    with pytest.raises((BudgetError, SelectionError)) as caught:
        as_budget(text)
    assert hint in str(caught.value)


def test_a_limit_is_in_milliseconds() -> None:
    assert latency(0.5).limit(12.0) == 6.0
    assert as_budget("latency=3ms").limit(12.0) == 3.0
    with pytest.raises(BudgetError, match="at most 1"):
        latency(1.5)


def test_what_is_measured_is_not_among_what_is_counted() -> None:
    assert is_measured("latency")
    assert not any(is_measured(t) for t in targets())
