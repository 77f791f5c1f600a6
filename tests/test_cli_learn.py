"""The commands that train and judge, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tonsor
from tonsor import zoo
from tonsor.cli import main

QUICK = ["--limit", "200", "--epochs", "1", "--quiet", "--no-board", "--args", '{"width": 0.25}']
NET = ["zoo:resnet20", "--args", '{"width": 0.25}']


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "base"
    assert main(["train", "zoo:resnet20", *QUICK, "--out", str(out)]) == 0
    return out


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_training_leaves_weights_recipe_and_result(trained: Path) -> None:
    names = {p.name for p in trained.iterdir()}
    assert {"model.safetensors", "run.toml", "result.json"} <= names
    assert "epochs = 1" in (trained / "run.toml").read_text("utf-8")


def test_what_was_trained_can_be_judged_again(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(trained / "model.safetensors")
    found = _json(capsys, "eval", *NET, "--weights", weights)
    said = json.loads((trained / "result.json").read_text("utf-8"))
    assert found["split"] == "test"
    assert found["total"] == 360
    assert found["correct"] == said["final"]["correct"]
    held = _json(capsys, "eval", *NET, "--weights", weights, "--on", "validation")
    assert held["correct"] == said["best"]["correct"]
    other = _json(capsys, "eval", *NET, "--weights", weights, "--mean", "0.9", "--std", "0.01")
    assert other["loss"] != found["loss"]


def test_a_slim_network_is_tuned_with_a_teacher_and_stays_slim(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, slim = str(trained / "model.safetensors"), str(tmp_path / "slim.tonsor")
    args = '{"width": 0.25, "channels": 1}'
    cut = ["prune", "zoo:resnet20", "--args", args, "--weights", weights, "--macs", "50%"]
    assert main([*cut, "--out", slim]) == 0
    out = tmp_path / "tuned"
    tune = ["finetune", "zoo:resnet20", *QUICK, "--weights", slim, "--out", str(out)]
    capsys.readouterr()
    found = _json(capsys, *tune, "--teacher", weights, "--set", "temperature=2")
    assert found["out"] == str(out / "slim.tonsor")
    recipe = (out / "run.toml").read_text("utf-8")
    assert "distill = 0.5" in recipe
    assert "temperature = 2.0" in recipe
    tuned = tonsor.load(out / "slim.tonsor", zoo.build("resnet20", width=0.25, channels=1))
    before = tonsor.load(slim, zoo.build("resnet20", width=0.25, channels=1))
    shapes = {n: t.shape for n, t in before.state_dict().items()}
    assert {n: t.shape for n, t in tuned.state_dict().items()} == shapes
    judged = _json(capsys, "eval", *NET, "--weights", found["out"])
    assert judged["correct"] == found["test"]["correct"]


def test_a_finished_run_is_not_written_over_but_can_be_asked_again(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["train", "zoo:resnet20", *QUICK, "--out", str(trained)]
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    said = json.loads((trained / "result.json").read_text("utf-8"))
    assert _json(capsys, *again, "--resume")["test"]["correct"] == said["final"]["correct"]


def test_recipes_are_named_read_from_files_and_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "li-finetune"\nlr = 0.02\n', "utf-8")
    out = tmp_path / "run"
    words = ["train", "zoo:resnet20", *QUICK, "--recipe", str(file), "--out", str(out)]
    assert main([*words, "--set", "schedule=cosine", "--set", "ema=0.9", "--batch", "100"]) == 0
    recipe = (out / "run.toml").read_text("utf-8")
    for line in ("lr = 0.02", 'schedule = "cosine"', "ema = 0.9", "batch = 100", "epochs = 1"):
        assert line in recipe
    capsys.readouterr()
    assert main(["list", "recipes"]) == 0
    assert "li-finetune" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "zoo:resnet20", "--data", "cifar10:nowhere"], "nowhere"),
        (["train", "zoo:resnet20", "--recipe", "swp-trian"], "swp-train"),
        (["train", "zoo:resnet20", "--set", "epoch=3"], "epochs"),
        (["train", "zoo:resnet20", "--set", "lr=]"], "--set 'lr=]'"),
        (["train", "zoo:resnet20", "--mean", "1", "2", "3"], "1 channels"),
        (["train", "zoo:resnet20", "--args", '{"classes": 0}'], "classes"),
        (["eval", "zoo:resnet20", "--weights", "none.safetensors"], "none.safetensors"),
        (["finetune", "zoo:resnet2", "--weights", "x"], "resnet20"),
    ],
)
def test_mistakes_are_answered_with_a_way_out(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [] if words[0] == "eval" else ["--out", str(tmp_path / "run"), "--quiet"]
    assert main([*words, *out]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
