"""The commands that score, cut by a schedule, and compare, as they are typed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import save_model

import tonsor
from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.cli import main
from tonsor.criteria.scores import Scores

ARGS = ["--args", '{"width": 0.25, "channels": 1}']
NET = ["zoo:resnet20", *ARGS]
DIGITS = ["--data", "digits", "--limit", "200"]
QUICK = ["--quiet", "--score-batches", "1"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned a little, so that scores differ."""
    out = tmp_path_factory.mktemp("base")
    words = [
        "train",
        *NET,
        "--limit",
        "800",
        "--epochs",
        "8",
        "--quiet",
        "--no-board",
        "--out",
        str(out),
    ]
    assert main(words) == 0
    return out / "model.safetensors"


# ---------------------------------------------------------------- score


def test_scores_are_shown_saved_drawn_and_cut_by(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, figure = tmp_path / "scores.json", tmp_path / "norms.svg"
    words = ["score", *NET, "--weights", str(weights), "--by", "frobenius"]
    assert main([*words, "--out", str(scores), "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out
    assert "scores by frobenius" in shown
    assert "layer3.2.conv1.weight[0]" in shown
    assert figure.read_text("utf-8").startswith("<svg")
    assert (tmp_path / "norms.json").exists()
    cut = ["prune", *NET, "--weights", str(weights), "--budget", "macs=50%"]
    by_file = answer(capsys, *cut, "--by", str(scores))
    by_name = answer(capsys, *cut, "--by", "frobenius")
    assert by_file["kept"] == by_name["kept"]
    assert Scores.load(scores).by == "frobenius"


def test_a_criterion_that_looks_at_data_wants_it(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*NET, "--weights", str(weights), "--by", "taylor_gate"]
    assert "--data" in refusal(capsys, "score", *words)
    assert "--data" in refusal(capsys, "prune", *words, "--budget", "macs=50%")
    found = answer(capsys, "score", *words, *DIGITS, "--score-batches", "1")
    assert found["by"] == "taylor_gate"


def test_layers_are_chosen_by_pattern(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", *NET, "--weights", str(weights), "--by", "l1", "--layers", "layer2.*"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "layer2.1.conv1" in out
    assert "layer3.1.conv1" not in out
    assert "nothing in the model" in refusal(capsys, *words[:-1], "layer9.*")


# ---------------------------------------------------------------- prune


def test_ratios_and_the_skip_list_are_obeyed(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["prune", *NET, "--weights", str(weights)]
    found = answer(capsys, *cut, "--ratio", "layer3.0.conv1=5", "--ratio", "layer2.0.conv1=0.5")
    assert found["kept"] == {"layer3.0.conv1.weight[0]": 5, "layer2.0.conv1.weight[0]": 4}
    skipped = answer(capsys, *cut, "--budget", "macs=90%", "--skew", "0")
    assert any("skewness" in note for note in skipped["notes"])
    assert "NAME=KEPT" in refusal(capsys, *cut, "--ratio", "layer3.0.conv1")


def test_a_schedule_trains_cuts_proves_and_saves(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "slim.tonsor", tmp_path / "run"
    words = [
        "prune", *NET, "--weights", str(weights), *DIGITS, *QUICK, "--by", "taylor_weight",
        "--budget", "macs=60%", "--schedule", "iterative:8/1", "--out", str(out), "--run", str(run),
    ]  # fmt: skip
    found = answer(capsys, *words)
    assert found["proof"]["error"] <= found["proof"]["tolerance"]
    assert 0.58 < found["macs"]["after"] / found["macs"]["before"] <= 0.6
    net = zoo.build("resnet20", width=0.25, channels=1)
    slim = tonsor.load(str(out), net)
    kept = sum(p.numel() for p in slim.parameters())
    assert kept == found["params"]["after"]
    assert (run / "run.toml").exists()


def test_a_schedule_without_images_or_time_is_refused(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = ["prune", *NET, "--weights", str(weights), "--budget", "macs=40%"]
    slow = [*cut, "--schedule", "iterative:1/10"]
    assert "needs images" in refusal(capsys, *slow)
    run = ["--run", str(tmp_path / "run")]
    said = refusal(capsys, *slow, *DIGITS, *QUICK, *run, "--epochs", "1")
    assert re.search(r"takes about \d+ minibatches", said)
    assert "there are" in refusal(capsys, *cut, "--schedule", "sometimes:3")


def test_recovery_says_what_it_has_won(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "prune", *NET, "--weights", str(weights), *DIGITS, "--budget", "macs=60%",
        "--recover", "batchnorm",
    ]  # fmt: skip
    found = answer(capsys, *words)["recovery"]
    assert list(found["stages"]) == ["cut", "batchnorm"]
    assert found["held_out"]
    assert found["stages"]["batchnorm"]["error"] < found["stages"]["cut"]["error"]


# ---------------------------------------------------------------- sensitivity, study


def test_sensitivity_proposes_ratios_that_prune_takes(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sensitivity"
    words = [
        "sensitivity", *NET, "--weights", str(weights), *DIGITS, "--kept", "0.75", "--kept", "0.5",
        "--layers", "layer3.*", "--out", str(out), "--quiet", "--worst", "0.5",
    ]  # fmt: skip
    found = answer(capsys, *words)
    assert {row["fraction"] for row in found["rows"]} == {0.75, 0.5}
    assert (out / "curves.svg").exists()
    ratios = [w for n, k in found["ratios"].items() for w in ("--ratio", f"{n}={k}")]
    assert ratios
    assert answer(capsys, "prune", *NET, "--weights", str(weights), *ratios)["kept"]
    lines = (out / "rows.jsonl").read_text("utf-8")
    again = answer(capsys, *words, "--resume")
    assert again["rows"] == found["rows"]
    assert (out / "rows.jsonl").read_text("utf-8") == lines


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "resnet20.safetensors"
    save_model(zoo.build("resnet20", channels=1), str(path))
    return path


def test_a_study_tells_what_random_has_come_to_and_is_not_run_twice(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    words = [
        "study", "criteria", "resnet20", "--weights", str(small), "--data", "digits", "--images",
        "60", "--seeds", "1", "--kept", "0.5", "--by", "l1", "--by", "random", "--by", "uniform",
        "--by", "bn_scale", "--out", str(out), "--quiet",
    ]  # fmt: skip
    said = refusal(capsys, *words)
    assert "same score" in said  # an untrained network's scales are all one
    words.remove("bn_scale")
    words.pop(words.index("uniform") + 1)
    found = answer(capsys, *words)
    assert {r["settings"]["by"] for r in found.values()} == {"l1", "random", "uniform"}
    table = (out / "table.md").read_text("utf-8")
    assert "`random` is number" in table or "`random` wins" in table
    assert "±" in table
    first = {p: p.stat().st_mtime_ns for p in out.glob("*/result.json")}
    assert main(words) == 0
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/result.json")} == first


def test_schedules_are_compared(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "study", "schedules", "resnet20", "--weights", str(small), "--data", "digits", "--images",
        "400", "--epochs", "6", "--seeds", "1", "--kept", "0.8", "--by", "l2", "--out",
        str(tmp_path), "--quiet",
    ]  # fmt: skip
    found = answer(capsys, *words)
    by = {r["settings"]["how"]: r for r in found.values()}
    assert by["iterative"]["pieces"] == by["one-shot"]["pieces"]
    assert [left for _, left in by["iterative"]["rounds"]] == [302, 268]
    assert len(by["one-shot"]["rounds"]) == 1
    assert "iterative - one-shot" in (tmp_path / "table.md").read_text("utf-8")


def test_spsrc_is_for_the_networks_of_its_paper(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "spsrc", "resnet20", "--weights", str(small), "--data", "digits"]
    assert "has no configuration of resnet20" in refusal(capsys, *words, "--out", str(tmp_path))
