"""What is read out of the rows: rankings, ratios, curves, tables and JSON."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tonsor
from tests.sensitivity.nets import made, validation
from tonsor.errors import SelectionError, TrainError
from tonsor.sensitivity import Reading, Sensitivity, sensitivity
from tonsor.train import Evaluation

SIZE = 20
LOSSES = st.floats(0, 9) | st.just(math.inf)


@st.composite
def found(draw: st.DrawFn) -> Sensitivity:
    total = draw(st.integers(1, 500))
    fractions = sorted(draw(st.sets(st.sampled_from([0.9, 0.75, 0.5, 0.25, 0.1]), min_size=1)))
    rows = [
        Reading(
            f"g{g}", f, max(1, round(f * SIZE)), SIZE,
            Evaluation(draw(st.integers(0, total)), total, draw(LOSSES)),
            round((1 - f) * 1000) * (g + 1), round((1 - f) * 100),
        )
        for g in range(draw(st.integers(0, 4)))
        for f in reversed(fractions)
    ]  # fmt: skip
    base = Evaluation(draw(st.integers(0, total)), total, 0.5)
    return Sensitivity("l1", base, tuple(rows), {"h": "why"}, {"g0": ("t",)}, ("noted",))


@given(found(), st.floats(0, 1))
def test_ratios_are_the_least_that_was_measured_good_enough(
    result: Sensitivity, worst: float
) -> None:
    ratios = result.ratios(worst)
    assert list(ratios) == list(result.groups)
    for group, ratio in ratios.items():
        within = [
            r.kept / r.size for r in result.rows
            if r.group == group and result.base.accuracy - r.judged.accuracy <= worst
        ]  # fmt: skip
        assert ratio == pytest.approx(min([*within, 1.0]))


@given(found())
def test_area_is_that_of_many_thin_strips(result: Sensitivity) -> None:
    for group, area in result.ranking("area"):
        spots = result.curves()[group]
        total, width = 0.0, spots[0][0] - spots[-1][0]
        for (x, y, _), (u, v, _) in itertools.pairwise(spots):
            strips = [result.base.accuracy - (y + (v - y) * (i + 0.5) / 50) for i in range(50)]
            total += sum(strips) * (x - u) / 50
        assert area == pytest.approx(total / width, abs=1e-9)


@given(found())
def test_rankings_name_each_group_once_the_cheapest_first(result: Sensitivity) -> None:
    for by in ("macs", "params", "area"):
        ranking = result.ranking(by)
        assert sorted(name for name, _ in ranking) == sorted(result.groups)
        assert [n for _, n in ranking] == sorted(n for _, n in ranking)
    for name, price in result.ranking("macs"):
        lost = sum(result.base.accuracy - r.judged.accuracy for r in result.of(name))
        assert price * sum(r.macs for r in result.of(name)) / 1e6 == pytest.approx(lost, abs=1e-9)


@given(found())
def test_json_and_back(result: Sensitivity) -> None:
    again = Sensitivity.from_json(result.to_json())
    assert again.to_json() == result.to_json()
    assert str(again) == str(Sensitivity.from_json(again.to_json()))
    assert all(a.judged.correct == b.judged.correct for a, b in zip(again.rows, result.rows))  # noqa: B905


@given(found())
def test_curves_begin_whole_and_go_down_in_size(result: Sensitivity) -> None:
    for group, spots in result.curves().items():
        assert spots[0] == (1.0, result.base.accuracy, result.base.standard_error)
        assert [x for x, _, _ in spots] == sorted({x for x, _, _ in spots}, reverse=True)
        assert {x for x, _, _ in spots} == {1.0} | {r.share for r in result.of(group)}


def test_ratios_make_the_plan_they_were_measured_for(tmp_path: Path) -> None:
    anatomy = tonsor.inspect(made("residual"), torch.randn(2, 1, 8, 8))
    result = sensitivity(anatomy, validation(), fractions=(0.7, 0.3), quiet=True)
    ratios = result.ratios(0.05)
    assert len(set(ratios.values())) > 1
    plan = tonsor.plan(anatomy, by="l1", ratios=ratios)
    for group, ratio in ratios.items():
        kept = plan.counts.get(group, anatomy.by_name[group].size)
        assert kept == ratio * anatomy.by_name[group].size
    result.save(tmp_path / "sensitivity.json")
    assert Sensitivity.load(tmp_path / "sensitivity.json") == result


def test_the_table_says_what_is_lost() -> None:
    base = Evaluation(90, 100, 0.25)
    rows = tuple(
        Reading("conv", f, k, 16, Evaluation(c, 100, 1.0), 10, 10)
        for f, k, c in ((0.75, 12, 90), (0.5, 8, 81))
    )
    text = str(Sensitivity("l2", base, rows, {"odd": "no norm"}, {"conv": ("twin",)}, ("slow",)))
    assert "90.00 %" in text
    assert text.splitlines()[3].split() == ["conv", "16", "+0.00", "-9.00"]
    assert "with conv are cut twin" in text
    assert "not tried: odd: no norm" in text
    assert "note: slow" in text


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    result = Sensitivity("l1", Evaluation(1, 2, 0.0), ())
    with pytest.raises(SelectionError, match="got 'time'"):
        result.ranking("time")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="worst_loss"):
        result.ratios(-0.1)
    with pytest.raises(SelectionError, match="'conv' was not tried"):
        result.of("conv")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(TrainError, match="no sensitivity"):
        Sensitivity.load(tmp_path / "other.json")
    with pytest.raises(TrainError, match="can't be read"):
        Sensitivity.load(tmp_path / "missing.json")
