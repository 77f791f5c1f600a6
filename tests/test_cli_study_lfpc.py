"""The study of learned criteria, as it is typed: small, on a network that was never trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.cli.study_lfpc import lfpc_study
from tonsor.study import base as study_base
from tonsor.study.base import Base
from tonsor.study.lfpc import LfpcStudy

WORDS = ["study", "lfpc", "resnet20", "--data", "digits", "--weights"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet20.safetensors"
    save_file(zoo.build("resnet20", channels=1).state_dict(), path)
    return path


def test_it_searches_cuts_and_tells(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, str(weights), "--out", str(tmp_path), "--images", "64", "--seeds", "1"]
    words += ["--kept", "0.6", "--by", "l1", "--by", "median", "--quiet"]
    found = answer(capsys, *words)
    (trial,) = found.values()
    assert trial["settings"]["criteria"] == ["l1", "median"]
    assert trial["settings"]["search"] == {}
    assert set(trial["kinds"]) == {"lfpc", "l1", "median", "random", "searched", "even"}
    costs = {json.dumps(k["macs"]) for name, k in trial["kinds"].items() if name != "even"}
    assert len(costs) == 1
    whole, left = json.loads(costs.pop())
    assert 0.59 * whole < left <= 0.6 * whole
    page = (tmp_path / "table.md").read_text("utf-8")
    assert "| LFPC |" in page
    assert "| median everywhere |" in page
    assert "Of the channels that l1 keeps at these widths, median keeps" in page
    assert "not paired" not in page
    figures = {path.name for path in tmp_path.glob("*.svg")}
    assert figures == {"lfpc_norms.svg", "lfpc_60_criteria.svg", "lfpc_60_odds.svg"}
    assert answer(capsys, *words) == found


@pytest.mark.parametrize(("images", "held"), [(300, 143), (100, 143)])
def test_it_keeps_a_tenth_of_few_images_to_decide_by(images: int, held: int, weights: Path) -> None:
    made = lfpc_study(Base(network="resnet20", weights=str(weights), data="digits", images=images),
                      (), (), (0,))  # fmt: skip
    assert (made.criteria, made.kept) == (LfpcStudy.criteria, LfpcStudy.kept)
    given = made.base.splits(0)
    assert (made.base.validation, len(given.validation)) == (held, held)
    assert len(given.train) == images


def test_it_keeps_two_thousand_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    class Many:
        train = range(45_000)

    monkeypatch.setattr(study_base, "_splits", lambda *_: Many())
    base = Base(network="resnet20", weights="w", data="d")
    assert lfpc_study(base, (), (), (0,)).base.validation == 2000


MISTAKES = [
    (["--kept", "1.5"], "--kept is a share of the multiply-accumulates"),
    (["--kept", "0"], "--kept is a share of the multiply-accumulates"),
    (["--by", "uniform"], "uniform is no criterion that a layer could choose"),
    (["--by", "l1", "--by", "l1"], "each criterion may be there once"),
    (["--by", "taylor_gate"], "taylor_gate looks at data"),
    (["--by", "l3"], "no criterion is called 'l3'"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_told_before_anything_is_done(
    words: list[str], said: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert said in refusal(capsys, *WORDS, str(weights), "--out", str(out), *words)
    assert not out.exists()
