"""Filters that share their stripes, as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tonsor
from tests.commands import answer, place, refusal
from tests.test_cli_stripes import BLIND, CUT, NET, TRAIN, filled, written
from tonsor.artifact import read_plan
from tonsor.cli import main
from tonsor.families.stripes.groups import shared_by


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(tmp_path_factory.mktemp("base") / "net.safetensors")


def test_whole_groups_go_at_once_as_in_python_and_are_listed(
    weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "slim.tonsor"
    words = [*BLIND, *weights, "--macs", "50%", "--stripe-group", "4", "--out", str(out)]
    answer(capsys, *words)
    anatomy = tonsor.inspect(filled(weights), torch.randn(1, 1, 32, 32))
    wanted = tonsor.plan_stripes(anatomy, "macs=50%", stripe_group=4)
    plan = read_plan(out)
    assert (plan.stripes, plan.keep) == (wanted.stripes, wanted.keep)
    assert plan.made_by["stripe_group"] == 4
    masks = {n.removesuffix(".weight"): s.mask for n, s in plan.cut().fibres.items()}
    listed = answer(capsys, "stripes", *NET, "--weights", str(out))["layers"]
    for layer in listed:
        mask = masks.get(layer["name"])
        assert layer["stripe_group"] == (1 if mask is None else shared_by(mask))
    assert sum(layer["stripe_group"] % 4 == 0 for layer in listed) == len(masks) > 5
    assert main(["stripes", *NET, "--weights", str(out)]) == 0
    assert "filters share by 4" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["swp", "lasso"])
def test_whole_groups_go_in_the_course_of_a_training(
    method: str, weights: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TRAIN, *weights, "--method", method, "--macs", "60%", "--ramp", "3", "--every", "1"]
    words += ["--epochs", "1", *place(tmp_path, "run")]
    answer(capsys, *words, "--stripe-group", "8")
    plan = read_plan(tmp_path / "run.tonsor")
    assert plan.made_by["stripe_group"] == 8
    assert plan.stripes
    for stripes in plan.stripes.values():
        mask = stripes.mask
        assert all((mask[i : i + 8] == mask[i]).all() for i in range(0, len(mask), 8))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*CUT, "--macs", "50%", "--stripe-group", "0"], "stripe_group is how many filters share"),
        (
            [*TRAIN, "--method", "swp", "--macs", "50%", "--stripe-group", "-8"],
            "stripe_group is how many filters share their stripes, at least 1, got -8",
        ),
        (
            ["prune", *NET, "--macs", "50%", "--stripe-group", "8"],
            "--stripe-group 8 is about stripes, and channels go here",
        ),
        (
            ["prune", *NET, "--family", "columns", "--macs", "50%", "--stripe-group", "8"],
            "--stripe-group 8 is about stripes, and columns go here",
        ),
        (
            [*TRAIN, "--method", "spp", "--family", "stripes", "--macs", "50%", "--stripe-group",
             "8"],
            "by spp each filter has its own",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_words(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert told in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())
