"""The study of SPP's settings: each column of the tables is a trial, and is told beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.commands import refusal
from tonsor import zoo
from tonsor.methods.spp.table import INTERVAL, TABLE2, TABLE3
from tonsor.plan_json import load_plan
from tonsor.study.base import TUNE, Base
from tonsor.study.paired import Figure, packed
from tonsor.study.spp import PLAN
from tonsor.study.spp_settings import HEADER, SettingsStudy, settings_page, settings_trial
from tonsor.study.trials import run_trials

IMAGES = 360  # test images of the digits


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SettingsStudy:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    base = Base(
        network="resnet20", weights=str(path), data="digits", images=96, calibrate=1,
        score_batches=1, batch=8, recipe=TUNE.but(batch=8, precision="no", epochs=1),
    )  # fmt: skip
    return SettingsStudy(base=base, seeds=(0, 1))


def faked(study: SettingsStudy, took: int, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """Results as they would be if each trial took so many updates and had half of it right."""
    right = packed(np.arange(IMAGES) % 2 == 0)
    return {
        t.key: {
            "settings": t.settings, "updates": {"a": took - 1, "b": took}, "notes": list(notes),
            "interval": round(
                (t.settings["value"] if t.settings["varied"] == "interval" else INTERVAL)
                / t.settings["shorter"]
            ),
            "answers": {"tuned": right},
        }
        for t in study.trials()
    }  # fmt: skip


def test_every_column_of_the_tables_is_a_trial_with_just_that_setting(
    study: SettingsStudy, tmp_path: Path
) -> None:
    trials = study.trials()
    assert len({t.key for t in trials}) == 2 * (len(TABLE2) + len(TABLE3))
    by_key = {t.key: t for t in trials}
    some = [by_key[k] for k in ("interval_270_0", "most_0.1_0", "centre_0.5_1")]
    found = run_trials(settings_trial, study, some, tmp_path, quiet=True)
    made = {k: load_plan(tmp_path / k / PLAN).made_by for k in found}
    told = {k: (m["interval"], m["most"], m["centre"], m["seed"]) for k, m in made.items()}
    assert told == {
        "interval_270_0": (9, 0.05, 0.25, 0), "most_0.1_0": (2, 0.1, 0.25, 0),
        "centre_0.5_1": (2, 0.05, 0.5, 1),
    }  # fmt: skip
    assert {m["budget"] for m in made.values()} == {"spp_speedup=4x"}
    page = settings_page(study, found, Figure(0.9, 0.01))
    assert len([line for line in page.splitlines() if line.startswith(("| t", "| A", "| u"))]) == 3


def test_iterations_are_told_as_the_paper_would_have_them(study: SettingsStudy) -> None:
    page = settings_page(study, faked(study, 73), Figure(0.9, 0.01))
    rows = {
        cells[0]: cells for line in page.splitlines()
        if len(cells := [c.strip() for c in line.strip("|").split("|")]) == len(HEADER)
    }  # fmt: skip
    assert float(rows["t = 180"][2]) == pytest.approx(73 * 180 / 1000, abs=0.05)
    assert float(rows["t = 90"][2]) == pytest.approx(73 * 90 / 1000, abs=0.05)
    assert float(rows["A = 0.01"][2]) == pytest.approx(73 * 180 / 1000, abs=0.05)
    assert rows["A = 0.01"][1] == "66"
    assert rows["t = 180"][3] == "73"
    assert rows["u = 0.5"][5].startswith("50.0")


def test_a_training_that_ended_first_is_said(study: SettingsStudy) -> None:
    notes = ("training ended before the pruning did; 3 pieces more went at once",)
    page = settings_page(study, faked(study, 10, notes), Figure(0.9, 0.01))
    assert "> 1.8" in page


def test_options_that_mean_nothing_are_refused(
    study: SettingsStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "spp-settings", "resnet20", "--weights", study.base.weights, "--data",
             "digits", "--kept", "0.5"]  # fmt: skip
    assert "--kept have no meaning for spp-settings" in refusal(capsys, *words)
