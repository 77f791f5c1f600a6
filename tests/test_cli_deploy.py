"""The command that shows how fast a model can run, as it is typed."""

from __future__ import annotations

import pytest
import torch

import tonsor
from tests.commands import answer, refusal
from tonsor import zoo
from tonsor.cli import main
from tonsor.deploy import whole

NET = ["zoo:resnet20", "--args", '{"width": 0.25}']
FEW = ["--rounds", "1", "--way", "dense"]


@pytest.fixture(scope="module")
def slim(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("slim") / "slim.tonsor"
    torch.manual_seed(0)
    net, report = tonsor.prune_stripes(
        zoo.build("resnet20", width=0.25).eval(), torch.randn(1, 3, 32, 32), budget="macs=50%"
    )
    tonsor.save(path, net, report.plan)
    return str(path)


def test_the_table_has_every_convolution(capsys: pytest.CaptureFixture[str], slim: str) -> None:
    assert main(["deploy", *NET, "--weights", slim, *FEW]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    names = [line.split()[0] for line in lines[1 : lines.index("")]]
    assert names[:2] == ["conv1", "layer1.0.conv1"]
    assert len(names) == 19
    assert "stripes 4->4 3x3" in said
    assert "batch 1, 1 thread" in said
    assert max(map(len, lines)) <= 100


def test_the_numbers_can_be_had_as_json(
    capsys: pytest.CaptureFixture[str], slim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        whole, "_timed", lambda runs, given, rounds: {
            name: [2.0 if name == whole.DEPLOYED else 6.0] * rounds for name in runs
        },
    )  # fmt: skip
    words = ["deploy", *NET, "--weights", slim, "--rounds", "1", "--batch", "3"]
    found = answer(capsys, *words)
    assert found["returned"] == "deployed"
    assert found["speedup"] == pytest.approx(3)
    assert found["conditions"]["batch"] == 3
    assert len(found["rows"]) == 19
    row = found["rows"][1]
    assert row["name"] == "layer1.0.conv1"
    assert row["kind"].startswith("stripes")
    assert row["output"] == [3, 4, 32, 32]
    assert row["chosen"] in row["ms"]
    assert {"dense", "torch"} <= set(row["ms"])
    assert row["fused"] == "bn+relu"


def test_mistakes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", *NET]
    assert "no way called ['warp']; known: dense" in refusal(capsys, *words, "--way", "warp")
    assert "--batch takes a number from 1 on" in refusal(capsys, *words, "--batch", "0")
    assert "--threads takes" in refusal(capsys, *words, "--threads", "0")
    assert "at least one round" in refusal(capsys, *words, "--rounds", "0")
