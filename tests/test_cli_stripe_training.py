"""The commands that train stripes away, or train on what has lost some, as they are typed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tonsor
from tests.commands import answer, refusal
from tests.test_cli_stripes import BLIND, DIGITS, NET, TRAIN, filled, small, written
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.methods.swp import FilterSkeleton, StripeLasso
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.train.method import Method, NoMethod


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


def stopping(monkeypatch: pytest.MonkeyPatch, kind: type[Method], at: int) -> None:
    """Have Ctrl-C pressed after a step of a training."""
    real = kind.after_step

    def after_step(self: Any, step: int) -> None:
        real(self, step)
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kind, "after_step", after_step)


# ---------------------------------------------------------------- prune, while training


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("swp", ["--budget", "macs=50%", "--ramp", "4", "--every", "2", "--alpha", "1e-3"]),
        ("swp", ["--threshold", "0.9", "--start", "norms", "--no-revival", "--floor", "4"]),
        ("lasso", ["--threshold", "0.2", "--alpha", "1e-2"]),
    ],
)
def test_a_training_is_stopped_and_goes_on_bit_for_bit(
    method: str, more: list[str], weights: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def words(folder: str, *rest: str) -> list[str]:
        place = ["--run", str(tmp_path / folder), "--out", str(tmp_path / f"{folder}.tonsor")]
        return [*TRAIN, *weights, "--method", method, *more, "--epochs", "2", *place, *rest]

    whole = answer(capsys, *words("a"))
    with monkeypatch.context() as patched:
        stopping(patched, FilterSkeleton if method == "swp" else StripeLasso, 4)
        assert main(words("b")) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "b.tonsor").exists()
    assert "--resume" in refusal(capsys, *words("b"))
    again = answer(capsys, *words("b", "--resume"))
    for found in (whole, again):
        found.pop("files")
        found["proof"].pop("error")
    assert again == whole
    assert whole["test"]["total"] > 0
    assert sum(s["left"] for s in whole["stripes"].values()) > 0
    if "--budget" in more:
        assert whole["macs"]["after"] <= 0.5 * whole["macs"]["before"]
    one, two = (load_file(tmp_path / f"{n}.tonsor") for n in "ab")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) for n in one)
    made = read_plan(tmp_path / "a.tonsor").made_by
    assert made["method"] == method
    assert made["alpha"] == float(more[-1]) if "--alpha" in more else True
    assert made["revival"] == ("--no-revival" not in more)


def test_a_skeleton_starts_as_suits_the_weights(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(*words: str) -> tuple[str, str]:
        run, plan = tmp_path / str(len(list(tmp_path.iterdir()))), tmp_path / "plan.json"
        given = [*TRAIN, "--method", "swp", "--macs", "70%", "--epochs", "1", *words]
        assert main([*given, "--run", str(run), "--plan", str(plan)]) == 0
        return tonsor.load_plan(plan).made_by["start"], capsys.readouterr().out

    found, said = start(*weights)
    assert found == "norms"
    assert "the skeleton from norms, for the weights were given" in said
    found, said = start()
    assert found == "ones"
    assert "the skeleton from ones, for the weights were random" in said
    assert "prunes trained ones" not in said
    found, said = start(*weights, "--start", "ones")
    assert found == "ones"
    assert "the weights were" not in said


def test_the_skeleton_alone_is_trained(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "plan.json"
    words = [*TRAIN, *weights, "--method", "swp", "--threshold", "0.01", "--start", "ones"]
    words += ["--skeleton-only", "--epochs", "1", "--lr", "0.01", "--run", str(tmp_path / "run")]
    out = tmp_path / "slim.tonsor"
    answer(capsys, *words, "--out", str(out), "--plan", str(plan))
    assert tonsor.load_plan(plan).made_by["skeleton_only"]
    slim, net = tonsor.load(out, small()), filled(weights)
    before, after = net.state_dict()["layer2.1.conv1.weight"], slim.state_dict()
    ratio = after["layer2.1.conv1.weight"] / before  # each stripe by a number of its own
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-4, atol=1e-5)
    assert not torch.equal(after["bn1.weight"], net.state_dict()["bn1.weight"])


def test_training_goes_on_from_a_model_that_has_lost_stripes(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels, one, two = (tmp_path / f"{n}.tonsor" for n in "abc")
    answer(capsys, "prune", *NET, *weights, "--macs", "70%", "--out", str(channels))
    answer(capsys, *BLIND, "--weights", str(channels), "--macs", "60%", "--out", str(one))
    words = [
        *TRAIN,
        "--weights",
        str(one),
        "--method",
        "swp",
        "--threshold",
        "1e-4",
        "--lr",
        "1e-4",
    ]
    words += ["--epochs", "1", "--run", str(tmp_path / "run"), "--out", str(two)]
    found = answer(capsys, *words)
    first, total = read_plan(one), read_plan(two)
    assert total.fingerprint == first.fingerprint
    assert total.drops == ()
    for name, earlier in first.cut().fibres.items():
        kept = total.cut().fibres[name]
        assert all(a & b == a for a, b in zip(kept.rows, earlier.rows, strict=True))
    judged = answer(capsys, "eval", *NET, "--weights", str(two), "--limit", "200")
    assert judged["correct"] == found["test"]["correct"]


# ---------------------------------------------------------------- finetune, eval, list


def test_a_striped_model_is_trained_on_and_judged(
    weights: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    slim = tmp_path / "slim.tonsor"
    answer(capsys, *BLIND, *weights, "--macs", "50%", "--out", str(slim))

    def words(folder: str, *rest: str) -> list[str]:
        tune = ["finetune", *NET, "--weights", str(slim), *DIGITS, "--no-board", "--epochs", "2"]
        return [*tune, "--out", str(tmp_path / folder), "--device", "cpu", *rest]

    whole = answer(capsys, *words("a"))
    with monkeypatch.context() as patched:
        stopping(patched, NoMethod, 2)
        assert main(words("b")) == 130
    capsys.readouterr()
    again = answer(capsys, *words("b", "--resume"))
    assert again["test"] == whole["test"]
    one, two = (load_file(tmp_path / n / "slim.tonsor") for n in "ab")
    assert all(torch.equal(one[n], two[n]) for n in one)
    tuned: Any = tonsor.load(tmp_path / "a" / "slim.tonsor", small())
    assert isinstance(tuned.layer3[0].conv1, StripeConv2d)
    before = load_file(slim)
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in before.items()}
    assert not torch.equal(one["layer3.0.conv1.weight"], before["layer3.0.conv1.weight"])
    judged = answer(capsys, "eval", *NET, "--weights", whole["out"], "--limit", "200")
    assert judged["correct"] == whole["test"]["correct"]
