"""The study of stripes, small: every way runs once, and what it found is told and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tonsor import zoo
from tonsor.families.stripes.positions import positions
from tonsor.plan_json import load_plan
from tonsor.study import swp
from tonsor.study.base import TUNE, Base
from tonsor.study.paired import Figure, packed
from tonsor.study.swp import PLAN, SwpStudy, swp_trial
from tonsor.study.swp_tell import HEADER, NAMES, draw, page, rows
from tonsor.study.trials import run_trials

IMAGES = 360  # test images of the digits
Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SwpStudy:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    base = Base(
        network="resnet20", weights=str(path), data="digits", images=64, calibrate=1,
        score_batches=1, batch=16, recipe=TUNE.but(batch=16, precision="no", epochs=2),
    )  # fmt: skip
    return SwpStudy(base=base, kept=(0.5,), every=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(study: SwpStudy, folder: Path) -> Found:
    return run_trials(swp_trial, study, study.trials(), folder, quiet=True)


def test_every_way_meets_the_budget_and_cutting_changes_nothing(
    study: SwpStudy, found: Found
) -> None:
    assert set(found) == {t.key for t in study.trials()}
    assert {r["settings"]["kind"] for r in found.values()} == set(NAMES)
    for key, result in found.items():
        before, after = result["macs"]
        assert 0.47 * before < after <= 0.5 * before, key
        assert result["held"] == result["params"][1], key
        if result["settings"]["kind"] not in ("filters", "stripes"):
            assert not result["changed"], key
            assert result["proof"] < 1e-9, key
            assert result["moments"][-1][3] <= 0.5 * result["moments"][0][3] / 0.4, key


def test_what_went_on_from_filters_is_a_plan_of_the_original(
    study: SwpStudy, found: Found, folder: Path
) -> None:
    plan = load_plan(folder / "slimmed+swp_50_0" / PLAN)
    anatomy = study.base.anatomy(study.base.model())
    slim = plan.apply(anatomy.model)
    result = found["slimmed+swp_50_0"]
    assert sum(p.numel() for p in slim.parameters()) == result["params"][1]
    assert result["params"][1] < result["slimmed"]["params"][1] < result["params"][0]
    assert plan.stripes
    assert plan.keep


def test_positions_are_what_the_plan_keeps(study: SwpStudy, found: Found, folder: Path) -> None:
    plan = load_plan(folder / "swp_50_0" / PLAN)
    anatomy = study.base.anatomy(study.base.model())
    shares = positions(anatomy, plan)
    assert shares == found["swp_50_0"]["positions"]
    left = sum(
        round(sum(s) * anatomy.parameters[f"{n}.weight"].shape[0]) for n, s in shares.items()
    )
    whole = {n: anatomy.parameters[f"{n}.weight"].shape[0] * 9 for n in shares}
    cut = plan.cut()
    wanted = 0
    for name, size in whole.items():
        weight = f"{name}.weight"
        if weight in cut.fibres:
            wanted += cut.fibres[weight].left
        else:
            kept = cut.keep.get(weight, (None,))[0]
            wanted += size if kept is None else 9 * len(kept)
    assert left == wanted < sum(whole.values())


def test_what_is_done_is_not_done_again(
    study: SwpStudy, found: Found, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(swp, "tune", never)
    assert run_trials(swp_trial, study, study.trials(), folder, quiet=True) == found


def test_the_page_tells_every_way_against_filters_and_lasso(
    study: SwpStudy, found: Found, tmp_path: Path
) -> None:
    right = np.arange(IMAGES) < 180
    better = np.arange(IMAGES) < 216
    made = {
        key: {**r, "answers": {n: packed(better if "swp_50" in key else right)
                               for n in r["answers"]}}
        for key, r in found.items()
    }  # fmt: skip
    told = {row[1]: row for row in rows(study, made)}
    assert len(told) == len(NAMES)
    assert len(told["skeleton"]) == len(HEADER)
    assert told["skeleton"][3].startswith("60.0")
    assert told["skeleton"][5].startswith("+10.0")
    assert told["filters at once (l1)"][5] == ""
    assert told["group lasso"][5].startswith("+0.0")
    text = page(study, made, Figure(0.9, 0.01))
    assert "Cutting changed an answer in 0 of 5 networks" in text
    assert "going on from there with a skeleton" in text
    files = draw(study, made, Figure(0.9, 0.01), tmp_path)
    assert [f.name for f in files] == ["swp_curves.svg", "swp_remaining_50.svg"]
    data = json.loads((tmp_path / "swp_curves.json").read_text())
    ((_, x, y, _),) = data["lines"]["params"]["skeleton"]
    assert x == found["swp_50_0"]["params"][1]
    assert y == pytest.approx(0.6)
