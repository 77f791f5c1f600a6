"""The LayerPrune study, small: every step runs once, and what it found is told and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tonsor import zoo
from tonsor.errors import BudgetError
from tonsor.study import layerprune, layerprune_run
from tonsor.study.base import TUNE, Base
from tonsor.study.layerprune import PLAN, LayerPruneStudy
from tonsor.study.layerprune_draw import draw
from tonsor.study.layerprune_run import Findings, run_layerprune
from tonsor.study.layerprune_tell import page
from tonsor.study.paired import packed

IMAGES = 360  # test images of the digits


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> LayerPruneStudy:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    base = Base(
        network="resnet20", weights=str(path), data="digits", images=64, calibrate=1,
        score_batches=1, batch=16, recipe=TUNE.but(batch=32, precision="no"),
    )  # fmt: skip
    return LayerPruneStudy(
        base=base, by=("imprint", "l1"), most=2, others=(2,), tuned_others=("l1",), filters=(40,),
        filters_by=("l1",), scratch=1, deep=(), batches=(1,), rounds=2,
        smaller={"resnet20": str(path)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def findings(study: LayerPruneStudy, folder: Path) -> Findings:
    return run_layerprune(study, folder, quiet=True)


def test_every_step_is_there(study: LayerPruneStudy, findings: Findings, folder: Path) -> None:
    assert set(findings.scores) == {t.key for t in study.scoring()}
    assert set(findings.cut) == {t.key for t in study.cutting()}
    assert set(findings.matched) | set(findings.unreached) == {t.key for t in study.matching()}
    assert len(findings.blocks) == 9
    assert len(findings.removable) == 7
    for key, result in findings.cut.items():
        settings = result["settings"]
        if settings["kind"] in ("blocks", "untuned", "scratch"):
            assert len(result["gone"]) == settings["n"], key
            assert result["macs"][0] - result["macs"][1] > 0
        if settings["kind"] == "blocks":
            assert set(result["answers"]) == {"cut", "recalibrated", "tuned"}
            assert (folder / key / PLAN).exists()
    (iterative,) = (r for r in findings.cut.values() if r["settings"]["kind"] == "iterative")
    assert len(iterative["steps"]) == 1


def test_filters_go_by_number(study: LayerPruneStudy, findings: Findings, folder: Path) -> None:
    plan = json.loads((folder / "filters_l1_40_0" / PLAN).read_text())
    sizes = dict(plan["leaves"])
    gone = {n: sizes[n] - len(kept) for n, kept in plan["keep"].items()}
    assert sum(gone.values()) == 40
    assert all(".conv1." in n for n in gone)  # of the convolutions inside blocks only


def test_what_is_done_is_not_done_again(
    study: LayerPruneStudy, findings: Findings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> Any:
        raise AssertionError

    for name in ("scores_trial", "cut_trial", "latency_trial"):
        monkeypatch.setattr(layerprune_run, name, never)
    again = run_layerprune(study, folder, quiet=True)
    assert again.cut == findings.cut


def test_the_page_tells_all(study: LayerPruneStudy, findings: Findings) -> None:
    text = page(study, findings)
    for title in ("order in which", "removed by imprint", "same measured latency",
                  "Filters removed", "every criterion", "one by one", "from scratch",
                  "by hand", "95 %"):  # fmt: skip
        assert title in text, title
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert not [r for r in rows if "nan" in r]


def test_numbers_on_the_page_are_those_of_the_results(
    study: LayerPruneStudy, findings: Findings
) -> None:
    def with_right(share: float, results: Mapping[str, Any]) -> dict[str, Any]:
        right = packed(np.arange(IMAGES) < round(share * IMAGES))
        return {k: {**r, "answers": dict.fromkeys(r["answers"], right)} for k, r in results.items()}

    made = replace(
        findings, cut=with_right(0.75, findings.cut), matched=with_right(0.5, findings.matched)
    )
    text = page(study, made)
    assert "75.0 ± 2.3" in text
    if findings.matched:
        assert "50.0 ± 2.6" in text
        assert "+25.0 ±" in text


def test_figures_are_drawn_with_their_data(
    study: LayerPruneStudy, findings: Findings, tmp_path: Path
) -> None:
    files = draw(study, findings, tmp_path)
    assert [f.name for f in files] == ["importance.svg", "curve.svg", "latency1.svg"]
    assert all(f.read_text().startswith("<?xml") or "<svg" in f.read_text() for f in files)
    assert (tmp_path / "latency1.json").exists()


def test_latencies_that_no_filters_reach_are_told(
    study: LayerPruneStudy, folder: Path, findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> Any:
        message = "too slow"
        raise BudgetError(message)

    monkeypatch.setattr(layerprune, "plan_timed", refuse)
    other = replace(study, matched_by="l2")
    again = run_layerprune(other, folder, quiet=True)
    assert again.unreached["matched1_l2_2_0"] == "too slow"
    assert "too slow" in page(other, again)
