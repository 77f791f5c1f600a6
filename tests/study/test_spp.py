"""The study of SPP, small: every way runs once, and what it found is told and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.cli.study_spp import spp_study
from tonsor.methods.spp.table import Tables, tables
from tonsor.plan_json import load_plan
from tonsor.study import spp
from tonsor.study.base import TUNE, Base
from tonsor.study.paired import Figure, packed
from tonsor.study.spp import KINDS, PLAN, SppStudy, spp_trial
from tonsor.study.spp_tell import HEADER, NAMES, course, draw, page, rows
from tonsor.study.trials import run_trials

IMAGES = 360  # test images of the digits
STEPS = 80
WHOLE = Figure(0.9, 0.01)
MADE = {
    "spp": ["l1", "rank", True], "spp l2": ["l2", "rank", True], "spp size": ["l1", "size", True],
    "spp no recovery": ["l1", "rank", False],
}  # fmt: skip
Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def study(weights: Path) -> SppStudy:
    """Long enough for SPP to end by itself at 2x; the updates of `spp size` do not suffice."""
    base = Base(
        network="resnet20", weights=str(weights), data="digits", images=160, calibrate=1,
        score_batches=1, batch=4, recipe=TUNE.but(batch=4, precision="no", epochs=2),
    )  # fmt: skip
    return SppStudy(base=base, speedups=(2,), seeds=(0,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def found(study: SppStudy, folder: Path) -> Found:
    return run_trials(spp_trial, study, study.trials(), folder, quiet=True)


def test_every_way_reaches_the_speedup_and_cutting_changes_nothing(
    study: SppStudy, found: Found, folder: Path
) -> None:
    assert set(found) == {t.key for t in study.trials()}
    assert {r["settings"]["kind"] for r in found.values()} == {*NAMES, "whole"}
    model = study.base.model()
    for key, result in found.items():
        speedup = result["settings"]["speedup"]
        assert speedup <= result["speedup"] < 1.05 * speedup, key
        assert result["macs"][1] < 1.04 * result["macs"][0] / speedup, key
        plan = load_plan(folder / key / PLAN)
        slim = plan.apply(model)
        left = sum(p.numel() for p in slim.parameters())
        assert left == result["held"] == result["params"][1], key
        if "updates" in result:
            assert not result["changed"], key
            assert result["proof"] < 1e-9, key
            told = [plan.made_by[name] for name in ("by", "scores", "recovery")]
            assert told == MADE[result["settings"]["kind"]]


def test_a_course_goes_from_nothing_to_what_was_lost(found: Found) -> None:
    ended = set()
    for result in found.values():
        if "moments" not in result:
            continue
        told = course(result, STEPS)
        early = any(note.startswith("training ended") for note in result["notes"])
        ended.add(early)
        assert list(told.sparsity) == result["layers"] == list(result["lost"])
        took = max(result["updates"].values()) * result["interval"]
        assert told.iterations[0] == 0
        assert told.iterations[-1] == (STEPS if early else took)
        for name, parts in told.sparsity.items():
            gone, of = result["lost"][name]
            assert parts[0] == 0
            assert parts[-1] == pytest.approx(gone / of, abs=1e-4)
            assert list(parts) == sorted(parts)
    assert ended == {True, False}  # both have been seen


def test_what_is_done_is_not_done_again(
    study: SppStudy, found: Found, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> Any:
        raise AssertionError

    monkeypatch.setattr(spp, "tune", never)
    assert run_trials(spp_trial, study, study.trials(), folder, quiet=True) == found


def test_what_was_found_is_told_and_drawn(study: SppStudy, found: Found, tmp_path: Path) -> None:
    told = {row[0]: row for row in rows(study, found, 2)}
    assert set(told) == set(NAMES.values())
    for key, result in found.items():
        if result["settings"]["kind"] == "whole":
            assert result["macs"][0] == result["macs"][1]
            continue
        row = dict(zip(HEADER, told[NAMES[result["settings"]["kind"]]], strict=True))
        assert row["parameters"] == f"{result['params'][1] / result['params'][0]:.1%}", key
        assert row["speed-up"] == "2.00x" or row["speed-up"] > "2.00x", key
    early = [k for k, r in found.items() if any("training ended" in n for n in r.get("notes", ()))]
    text = page(study, found, WHOLE)
    assert "Cutting changed an answer in 0 of 4 networks" in text
    assert text.count("training ended before the pruning did") == len(early)
    assert "Table 1" not in text
    files = draw(study, found, WHOLE, tmp_path)
    assert [f.name for f in files] == ["spp_curves.svg", "spp_sparsity_2x.svg"]
    data = json.loads((tmp_path / "spp_sparsity_2x.json").read_text())
    for name, key in (("SPP + rank", "spp_2_0"), ("SPP + norm", "spp-size_2_0")):
        assert data["courses"][name] == json.loads(json.dumps(vars_of(course(found[key], STEPS))))


def vars_of(told: Any) -> dict[str, Any]:
    return {"iterations": told.iterations, "sparsity": told.sparsity}


# ---------------------------------------------------------------- numbers that are known


def known(study: SppStudy, right: Mapping[str, int], **more: Any) -> Found:
    """Results of three seeds, each a little better, in which so many answers are right."""
    found: Found = {}
    for trial in study.trials():
        settings = dict(trial.settings)
        kind, seed = settings["kind"], settings["seed"]
        answers = packed(np.arange(IMAGES) < right[kind] + 36 * seed)
        result: dict[str, Any] = {
            "settings": settings, "macs": [1000, 500], "params": [200, 150],
            "speedup": settings["speedup"] + 0.004, "answers": {"tuned": answers},
        }  # fmt: skip
        if kind not in ("columns", "filters", "whole"):
            result |= {
                "layers": ["a", "b"], "updates": {"a": 60, "b": 70 + seed}, "interval": 7,
                "lost": {"a": [3, 4], "b": [6, 8]}, "notes": [], "changed": False, "proof": 1e-15,
                "moments": [[6, 0.0, 0.25], [503, 0.75, 0.75]],
            } | more  # fmt: skip
        found[trial.key] = result
    return found


RIGHT = {"spp": 144, "spp l2": 108, "spp size": 126, "spp no recovery": 90, "columns": 72,
         "filters": 180, "whole": 216}  # fmt: skip


@pytest.fixture
def convnet() -> SppStudy:
    """The network of the paper, of which nothing is run."""
    base = Base(network="convnet", weights="convnet.safetensors", data="digits", images=640)
    return SppStudy(base=base, speedups=(2, 3, 8))


def test_a_row_has_means_over_seeds_and_differences_to_what_goes_at_once(
    convnet: SppStudy,
) -> None:
    found = known(convnet, RIGHT)
    told = {row[0]: dict(zip(HEADER, row, strict=True)) for row in rows(convnet, found, 2)}
    mine = told["SPP"]
    assert mine["accuracy"].startswith("50.0 ± ")  # 40, 50 and 60 % of the images
    assert mine["seeds"] == "3, ± 10.0"
    assert mine["- whole"].startswith("-20.0 ± ")
    assert mine["- columns"].startswith("+20.0 ± ")
    assert mine["- filters"].startswith("-10.0 ± ")
    assert (mine["speed-up"], mine["MACs"], mine["parameters"]) == ("2.00x", "50.0%", "75.0%")
    assert (mine["iterations"], mine["changed"]) == ("497", "0 of 3")  # 71 updates of 7
    assert told["filters at once (l1)"]["- filters"] == ""
    assert told["filters at once (l1)"]["- columns"].startswith("+30.0")
    assert told["columns at once (l1)"]["iterations"] == ""
    assert "SPP, no recovery" not in told  # it is tried at the last speed-up only
    assert "SPP, no recovery" in {row[0] for row in rows(convnet, found, 8)}


def test_differences_are_over_the_seeds_that_both_have(convnet: SppStudy) -> None:
    found = known(convnet, RIGHT)
    del found["columns_2_0"], found["columns_2_1"]
    del found["filters_2_0"], found["filters_2_1"], found["filters_2_2"]
    mine = next(dict(zip(HEADER, r, strict=True)) for r in rows(convnet, found, 2))
    assert mine["- columns"].startswith("+20.0")  # not the mean of all seeds less the last
    assert mine["- filters"] == ""


def test_a_training_that_was_too_short_is_told(convnet: SppStudy) -> None:
    note = "training ended before the pruning did; 5 pieces more went at once"
    found = known(convnet, RIGHT, notes=[note])
    mine = next(dict(zip(HEADER, r, strict=True)) for r in rows(convnet, found, 2))
    assert mine["iterations"] == "> 5"
    text = page(convnet, found, WHOLE, Tables(()))
    assert f"- SPP, L2 norms, 3x, seed 1: {note}." in text
    assert "Measured at" not in text


def cells(text: str, name: str) -> list[str]:
    """The row of a table with that name."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [c.strip() for c in line.strip("|").split("|")][1:]


def test_the_page_has_the_tables_of_the_paper_beside_ours(convnet: SppStudy) -> None:
    simulated = tables(range(1))
    text = page(convnet, known(convnet, RIGHT), WHOLE, simulated)
    assert "| accuracy | 2x | 3x | 4x | 6x | 8x | 10x |" in text
    assert cells(text, "L1, paper") == [
        "81.7 (+0.2)", "", "81.2 (-0.3)", "80.3 (-1.2)", "80.0 (-1.5)", "79.1 (-2.4)"
    ]  # fmt: skip
    ours = cells(text, "L2, ours")
    assert [bool(c) for c in ours] == [True, True, False, False, True, False]
    assert ours[0].startswith("40.0 ± ")
    assert ours[0].endswith("(-50.0)")  # of 90 %
    for row in simulated.rows:
        letter = {"interval": "t", "most": "A", "centre": "u"}[row.printed.name]
        shown = cells(text, f"{letter} = {row.printed.value:g}")
        assert shown == [
            f"{row.printed.thousands:g}", f"{row.simulated[0]:.1f}", f"{row.printed.accuracy:.1f}"
        ]  # fmt: skip
    assert "its unit must be 10,000 iterations" in text
    assert (
        "- Measured at 3x: 497 iterations, which are 71 updates; with the paper's t = 180 they "
        "would be 12.8k."
    ) in text


def test_the_page_compares_what_spp_chooses_and_says_its_conditions(convnet: SppStudy) -> None:
    text = page(convnet, known(convnet, RIGHT), WHOLE)
    assert [c.split()[0] for c in cells(text, "L1 - L2")] == ["+10.0"] * 3
    assert [c.split()[0] for c in cells(text, "ranks - norms")] == ["+5.0"] * 3
    recovery = cells(text, "recovery - none")
    assert recovery[:2] == ["", ""]
    assert recovery[2].startswith("+15.0")
    assert "an update every 7 of the 5 iterations" in text
    for condition in convnet.base.conditions(3):
        assert f"- {condition}" in text
    assert "Cutting changed an answer in 0 of 30 networks" in text
    assert (
        "Whole, but trained on for as long as all others: 70.0 ± 2.1 % (seeds: 3, ± 10.0)" in text
    )
    assert "### 1x" not in text
    assert "the largest error of the proofs is 1e-15" in text


def test_figures_are_of_what_is_there(convnet: SppStudy, tmp_path: Path) -> None:
    found = {k: r for k, r in known(convnet, RIGHT).items() if k != "spp-size_8_0"}
    files = draw(convnet, found, WHOLE, tmp_path)
    assert [f.name for f in files] == [
        "spp_curves.svg", *(f"spp_sparsity_{s}x.svg" for s in (2, 3, 8))
    ]  # fmt: skip
    data = json.loads((tmp_path / "spp_sparsity_2x.json").read_text())
    assert list(data["courses"]) == ["SPP + rank", "SPP + norm"]
    assert data["courses"]["SPP + rank"] == {
        "iterations": [0, 7, 504], "sparsity": {"a": [0.0, 0.0, 0.75], "b": [0.0, 0.25, 0.75]}
    }  # fmt: skip
    last = json.loads((tmp_path / "spp_sparsity_8x.json").read_text())
    assert list(last["courses"]) == ["SPP + rank"]  # the other is not of this seed
    curves = json.loads((tmp_path / "spp_curves.json").read_text())["lines"]
    assert [x for _, x, _, _ in curves["speed-up"]["SPP"]] == pytest.approx([2.004, 3.004, 8.004])
    assert [y for _, _, y, _ in curves["parameters, k"]["SPP"]] == pytest.approx([0.5] * 3)
    assert len(curves["speed-up"]["SPP, no recovery"]) == 1


def test_nothing_found_is_a_page_all_the_same(convnet: SppStudy, tmp_path: Path) -> None:
    assert draw(convnet, {}, WHOLE, tmp_path) == []
    assert "90.0 ± 1.0 % before anything is cut" in page(convnet, {}, WHOLE, Tables(()))


# ---------------------------------------------------------------- the command


def test_the_command_asks_what_the_network_is_good_for(convnet: SppStudy, study: SppStudy) -> None:
    paper = spp_study(convnet.base, (), (0, 1, 2))
    assert (paper.kinds, paper.speedups, paper.extra) == (KINDS, (2, 4, 8), ("spp no recovery",))
    other = spp_study(study.base, (0.5, 0.25, 0.3), (0,))
    assert other.kinds == ("spp", "columns", "filters")
    assert other.speedups == pytest.approx((2, 10 / 3, 4))
    assert other.extra == ()
    assert other.trials()[0].settings["speedup"] == 2


def test_the_command_writes_the_page_and_the_figures(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "study", "spp", "resnet20", "--weights", str(weights), "--data", "digits", "--images",
        "16", "--epochs", "1", "--seeds", "1", "--kept", "0.8", "--out", str(tmp_path), "--quiet",
    ]  # fmt: skip
    assert "--by has no meaning for spp" in refusal(capsys, *words, "--by", "l1")
    assert "0.25 is a speed-up of 4x" in refusal(capsys, *words, "--kept", "4")
    found = answer(capsys, *words)
    assert set(found) == {"spp_1.25_0", "columns_1.25_0", "filters_1.25_0", "whole_1_0"}
    assert "### 1.25x" in (tmp_path / "table.md").read_text("utf-8")
    assert (tmp_path / "spp_sparsity_1.25x.svg").exists()
    assert json.loads((tmp_path / "results.json").read_text("utf-8")) == found
