"""The demo leaves what it says, and says nothing that it did not find."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import tonsor
from tonsor.demo import Settings, run
from tonsor.demo.story import Outcome, lines, network

BRIEF = Settings(epochs=1, tune_epochs=1, shares=(0.5,), criteria=("l1", "random"), rounds=2)
Shown = tuple[Path, str, Outcome]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("runs") / "demo"
    text = io.StringIO()
    outcome = run(folder, Console(file=text, width=200, markup=False), BRIEF)
    return folder, text.getvalue(), outcome


def test_every_network_is_cut_to_its_budget_and_proven(shown: Shown) -> None:
    _, text, outcome = shown
    assert [row.by for row in outcome.rows] == ["l1", "random"]
    for row in outcome.rows:
        assert 0.47 < row.kept <= 0.5
        proof = row.report.proof
        assert proof is not None
        assert str(proof) in text
        assert sum(p.numel() for p in outcome.models[row.name].parameters()) == row.report.params[1]


def test_each_network_is_judged_on_all_test_images(shown: Shown) -> None:
    _, _, outcome = shown
    for judged in (outcome.whole, *(j for r in outcome.rows for j in (r.raw, r.tuned))):
        assert judged.total == len(outcome.splits.test) == 360


def test_the_steps_come_in_order_and_the_table_holds_every_number(shown: Shown) -> None:
    _, text, outcome = shown
    places = [text.index(f"{i}. ") for i in range(1, 5)]
    assert places == sorted(places)
    assert "may be cut" in text
    for line in lines(outcome):
        assert all(cell in text for cell in line)
    for condition in outcome.conditions:
        assert condition in text


def test_the_numbers_are_those_of_the_run(shown: Shown) -> None:
    folder, _, outcome = shown
    found = json.loads((folder / "results.json").read_text("utf-8"))
    assert found["unpruned"]["test"]["correct"] == outcome.whole.correct
    for row in outcome.rows:
        said = found["pruned"][row.name]
        assert said["macs"] == row.report.macs[1]
        assert said["test_after_cut"]["correct"] == row.raw.correct
        assert said["test_after_tuning"]["correct"] == row.tuned.correct
    assert found["conditions"] == list(outcome.conditions)


def test_the_page_has_the_table_both_charts_and_the_way_on(shown: Shown) -> None:
    folder, _, outcome = shown
    page = (folder / "report.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert "tonsor.prune(model, x" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    for row in outcome.rows:
        assert f"{row.report.macs[1]:,}" in page


def test_a_slim_network_can_be_loaded_and_a_second_demo_begins_anew(shown: Shown) -> None:
    folder, _, outcome = shown
    row = outcome.rows[0]
    slim = tonsor.load(folder / "networks" / row.name / "slim.tonsor", network()).eval()
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(slim(x), outcome.models[row.name].eval()(x), rtol=0, atol=0)
    again = run(folder, Console(file=io.StringIO(), markup=False), BRIEF)
    assert again.whole.correct == outcome.whole.correct
    assert [r.tuned.correct for r in again.rows] == [r.tuned.correct for r in outcome.rows]
