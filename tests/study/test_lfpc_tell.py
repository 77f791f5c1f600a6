"""What the study of learned criteria has found is told by numbers that are known, and drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tonsor import zoo
from tonsor.criteria.score import score
from tonsor.plan_json import load_plan
from tonsor.study.base import TUNE, Base
from tonsor.study.lfpc import COMBINE, LfpcStudy, lfpc_trial, same_widths
from tonsor.study.lfpc_chosen import agreement, chosen_table, sure
from tonsor.study.lfpc_overlap import Overlap, overlaps
from tonsor.study.lfpc_tell import before, best_single, draw, header, names, page, rows
from tonsor.study.paired import Figure, packed
from tonsor.study.trials import run_trials

IMAGES = 360  # test images of the digits
WHOLE = Figure(0.9, 0.01)
RIGHT = {"lfpc": 180, "l1": 144, "l2": 162, "geometric_median": 90, "random": 126, "even": 108,
         "searched": 198}  # fmt: skip
FIRST = {"lfpc": 36, "l1": 18}  # right before tuning; all others 0
Found = dict[str, dict[str, Any]]


@pytest.fixture
def study() -> LfpcStudy:
    """One of which nothing is run."""
    base = Base(network="resnet20", weights="no.safetensors", data="digits", images=320,
                validation=100)  # fmt: skip
    return LfpcStudy(base=base)


def known(study: LfpcStudy, right: Mapping[str, int] = RIGHT) -> Found:
    """Results of three seeds, each a little better, in which so many answers are right."""
    found: Found = {}
    for trial in study.trials():
        its = dict(trial.settings)
        seed, kept = its["seed"], its["kept"]
        kinds = {
            kind: {
                "macs": [10_000, round(10_000 * kept) + 100 * (kind == "even")],
                "params": [200, 150], "held": 150,
                "validation": 0.5 + 0.1 * (kind == ("l2" if seed == 2 else "l1")),
                "answers": {
                    "tuned": packed(np.arange(IMAGES) < count + 36 * seed),
                    "cut": packed(np.arange(IMAGES) < FIRST.get(kind, 0)),
                    "recalibrated": packed(np.arange(IMAGES) < 2 * FIRST.get(kind, 0)),
                },
            } for kind, count in right.items()
        }  # fmt: skip
        chosen = ["l1", "l2", "l2" if seed else "l1", "geometric_median"]
        sites = {
            name: {
                "criterion": by,
                "left": 8 if name == "d" else 4,
                "of": 8,
                "criteria": [0.1, 0.3, 0.6],
            }
            for name, by in zip("abcd", chosen, strict=True)
        }
        found[trial.key] = {
            "key": trial.key, "settings": its, "kinds": kinds, "sites": sites,
            "notes": [f"a note of {seed}"] if seed == 1 else [], "whole": 10_000,
            "likeliest": 10_000 * kept * (1.04 + 0.02 * (seed == 2)), "reached": 10_000 * kept,
            "drawn": 10_000 * kept * 1.01, "seconds": {"all": 1.0},
        }  # fmt: skip
    return found


def told(study: LfpcStudy, found: Found, kept: float, **more: Any) -> dict[str, dict[str, str]]:
    return {
        row[0]: dict(zip(header(study), row, strict=True))
        for row in rows(study, found, kept, WHOLE, **more)
    }


def test_a_row_has_means_over_seeds_and_paired_differences(study: LfpcStudy) -> None:
    table = told(study, known(study), 0.5)
    assert list(table) == list(names(study).values())
    mine = table["LFPC"]
    assert mine["accuracy"].startswith("60.0 ± ")  # 50, 60 and 70 % of the images
    assert mine["seeds"] == "3, ± 10.0"
    assert (mine["MACs"], mine["parameters"]) == ("50.0%", "75.0%")
    assert [mine[f"- {by}"].split()[0] for by in study.criteria] == ["+10.0", "+5.0", "+25.0"]
    # The best by validation is l1 for two seeds, and l2, which is better by 5 points, for one.
    assert table["best single, by validation"]["accuracy"].startswith("51.7 ± ")
    assert mine["- best single"].startswith("+8.3")
    assert mine["- whole"].startswith("-30.0 ± ")
    assert table["l1 everywhere"]["- l1"] == ""
    assert table["l1 everywhere"]["- l2"].startswith("-5.0")
    assert table["the same part of each group (l2)"]["MACs"] == "51.0%"


def test_differences_to_the_whole_are_paired_where_its_answers_are_known(study: LfpcStudy) -> None:
    found = known(study, {**RIGHT, "lfpc": 288})
    same = np.arange(IMAGES) < 288 + 36
    one = {k: r for k, r in found.items() if r["settings"]["seed"] == 1}
    assert told(study, one, 0.5, answers=same)["LFPC"]["- whole"] == "+0.0 ± 0.0"
    unpaired = told(study, one, 0.5)["LFPC"]["- whole"]
    error = np.hypot(0.01, np.std(same, ddof=1) / np.sqrt(IMAGES))
    assert unpaired == f"+0.0 ± {100 * error:.1f}"
    assert "are not paired" in page(study, one, WHOLE)
    assert "are not paired" not in page(study, one, WHOLE, answers=same)


def test_before_tuning_all_are_compared_with_lfpc(study: LfpcStudy) -> None:
    table = {row[0]: row[1:] for row in before(study, known(study), 0.3)}
    assert [c.split()[0] for c in table["LFPC"] if c] == ["10.0", "20.0"]
    assert [c.split()[0] for c in table["l1 everywhere"]] == ["5.0", "10.0", "+10.0"]
    assert [c.split()[0] for c in table["l2 everywhere"]] == ["0.0", "0.0", "+20.0"]


def test_a_page_says_what_was_chosen_and_what_it_cost(study: LfpcStudy) -> None:
    text = page(study, known(study), WHOLE)
    assert text.index("### 50% of MACs") < text.index("### 30% of MACs")
    # a and b are in the first third of four sites, c in the middle, d in the last.
    assert "| l1 | 3 of 6 | 1 of 3 | 0 of 3 | 4 of 12 |" in text
    assert "| l2 | 3 of 6 | 2 of 3 | 0 of 3 | 5 of 12 |" in text
    assert "| geometric_median | 0 of 6 | 0 of 3 | 3 of 3 | 3 of 12 |" in text
    assert "All 3 seeds chose the same criterion at 3 of 4 sites; by chance it would be 0.4" in text
    assert "The odds of the chosen criterion are 60%" in text
    assert text.count("- 3 of 12 sites lose nothing") == 2
    assert "in the end 52.0% to 53.0%, within the tolerance of 5% in 2 of 3 searches" in text
    assert "of the last draws 50.5%; of the plans 50.0%" in text
    assert "Best single criterion by the validation images: l1 for 2 seed(s), l2 for 1" in text
    assert text.count("- Seed 1: a note of 1.") == 2
    assert "Not of the widths" not in text
    assert "still to run" not in text
    for condition in study.base.conditions(3):
        assert f"- {condition}" in text


def test_what_has_other_widths_is_told(study: LfpcStudy) -> None:
    found = known(study)
    found["50_1"]["kinds"]["l2"]["params"] = [200, 151]
    assert page(study, found, WHOLE).count("- Not of the widths of LFPC: l2 everywhere.") == 1


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_results_of_a_study_that_still_runs_are_told_too(data: st.DataObject) -> None:
    base = Base(network="resnet20", weights="no", data="digits", images=320, validation=100)
    study = LfpcStudy(base=base)
    every = known(study)
    keys = data.draw(st.lists(st.sampled_from(sorted(every)), unique=True))
    found = {k: every[k] for k in keys}
    for key in keys:
        gone = data.draw(st.lists(st.sampled_from(sorted(RIGHT)), unique=True))
        kinds = found[key]["kinds"]
        found[key]["kinds"] = {k: v for k, v in kinds.items() if k not in gone}
    text = page(study, found, WHOLE)
    assert (f"{6 - len(keys)} of 6 trials are still to run" in text) is (len(keys) < 6)
    for kept in {r["settings"]["kept"] for r in found.values()}:
        trials = [r for r in found.values() if r["settings"]["kept"] == kept]
        table = told(study, found, kept)
        for kind, count in RIGHT.items():
            seeds = [r["settings"]["seed"] for r in trials if kind in r["kinds"]]
            assert (names(study)[kind] in table) is bool(seeds)
            if seeds:
                mean = 100 * (count + 36 * np.mean(seeds)) / IMAGES
                assert table[names(study)[kind]]["accuracy"].startswith(f"{mean:.1f} ± ")
        both = [r["settings"]["seed"] for r in trials if {"lfpc", "l1"} <= r["kinds"].keys()]
        cell = table.get("LFPC", {}).get("- l1", "")
        assert cell.startswith("+10.0") if both else not cell


def test_validation_that_can_not_tell_chooses_nothing(study: LfpcStudy) -> None:
    found = known(study)
    trial = found["50_0"]
    assert best_single(study, trial) == "l1"
    trial["kinds"]["l2"]["validation"] = trial["kinds"]["l1"]["validation"]
    assert best_single(study, trial) == "l1"  # of equal ones the first
    trial["kinds"]["l2"]["validation"] = float("nan")
    assert best_single(study, trial) is None


def test_searches_of_other_sites_agree_on_nothing() -> None:
    one = {"a": {"criterion": "l1", "criteria": [0.9, 0.1]}}
    assert agreement([one]) is None
    assert agreement([one, {"b": one["a"]}]) is None
    assert agreement([one, one]) == (1, 1)
    assert sure([one]) == pytest.approx(0.9)
    assert chosen_table(["l1"], [one])[-1] == "| l1 | 1 of 1 | 0 of 0 | 0 of 0 | 1 of 1 |"


def test_nothing_found_is_a_page_all_the_same(study: LfpcStudy) -> None:
    assert "90.0 ± 1.0 % before anything is cut" in page(study, {}, WHOLE)


# ---------------------------------------------------------------- a study that has run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def small(folder: Path) -> LfpcStudy:
    torch.manual_seed(0)
    path = folder / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    base = Base(
        network="resnet20", weights=str(path), data="digits", images=32, calibrate=1,
        validation=16, recipe=TUNE.but(batch=8, precision="no"),
    )  # fmt: skip
    return LfpcStudy(base=base, criteria=("l1", "geometric_median"), kept=(0.5,), seeds=(0,),
                     search_epochs=1)  # fmt: skip


@pytest.fixture(scope="module")
def found(small: LfpcStudy, folder: Path) -> Found:
    return run_trials(lfpc_trial, small, small.trials(), folder, quiet=True)


def test_what_has_run_is_told_and_drawn(small: LfpcStudy, found: Found, folder: Path) -> None:
    table = told(small, found, 0.5)
    assert list(table) == list(names(small).values())
    alike = [r["parameters"] for n, r in table.items() if not n.startswith("the same part")]
    assert len(set(alike)) == 1
    assert "Not of the widths" not in page(small, found, WHOLE)
    files = draw(small, found, WHOLE, folder)
    assert [f.name for f in files] == [
        "lfpc_norms.svg", "lfpc_50_criteria.svg", "lfpc_50_odds.svg"
    ]  # fmt: skip
    norms = json.loads((folder / "lfpc_norms.json").read_text())["norms"]
    first = next(iter(small.base.model().parameters())).detach()
    assert norms["conv1"] == pytest.approx(first.flatten(1).norm(dim=1).tolist(), rel=1e-5)
    shown = json.loads((folder / "lfpc_50_criteria.json").read_text())
    assert f"{table['LFPC']['accuracy']} % after fine-tuning" in shown["conditions"][0]
    assert len(shown["layers"]) == 19


def test_overlaps_are_those_of_the_plans(small: LfpcStudy, found: Found, folder: Path) -> None:
    anatomy = small.base.anatomy(small.base.model())
    decided = load_plan(folder / "50_0" / "plan.json")
    groups = [g.name for g in anatomy.prunable]
    one, two = (
        same_widths(anatomy, decided, dict.fromkeys(groups, score(anatomy, by, combine=COMBINE)))
        for by in small.criteria
    )
    same = sum(len(set(one.keep[g]) & set(two.keep[g])) for g in one.keep)
    every = sum(len(kept) for kept in one.keep.values())
    chance = sum(len(kept) ** 2 / one.sizes[g] for g, kept in one.keep.items())
    ((overlap,),) = overlaps(small, found).values()
    assert overlap == Overlap("l1", "geometric_median", same / every, chance / every)
    text = page(small, found, WHOLE, overlaps={0.5: [overlap]})
    assert f"geometric_median keeps {same / every:.0%} too; by chance it would be" in text


def test_figures_of_a_search_that_is_not_over_are_left_out(
    small: LfpcStudy, tmp_path: Path
) -> None:
    assert [f.name for f in draw(small, {}, WHOLE, tmp_path)] == ["lfpc_norms.svg"]
