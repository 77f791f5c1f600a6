"""Models of the zoo on the command line: `zoo:resnet56`, with inputs that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model

import tonsor
from tonsor import zoo
from tonsor.cli import main

NARROW = ("--args", '{"width": 0.25}')


def cli(*arguments: str) -> int:
    return main(arguments)


def test_the_inputs_are_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("inspect", "zoo:resnet56", "--json") == 0
    assert json.loads(capsys.readouterr().out)["params"] == 853_018
    assert cli("inspect", "zoo:convnet", "--args", '{"size": 28, "channels": 1}', "--json") == 0
    assert json.loads(capsys.readouterr().out)["params"] < 89_578
    assert cli("explain", "zoo:resnet18", "layer1.0.conv1", "-i", "2,3,64,64") == 0
    assert "may be cut" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_prune_loads_weights_and_saves_what_loads_again(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(5)
    trained = zoo.build("resnet20", width=0.25).eval()
    weights, slim = tmp_path / "weights", tmp_path / "slim.tonsor"
    if kind == "torch":
        torch.save({"state_dict": trained.state_dict()}, weights)
    else:
        save_model(trained, str(weights))
    given = ("zoo:resnet20", *NARROW, "--macs", "60%", "--out", str(slim))
    assert cli("prune", *given, "--weights", str(weights)) == 0
    out = capsys.readouterr().out
    assert "proven" in out
    assert "weights were random" not in out
    loaded = tonsor.load(slim, zoo.build("resnet20", width=0.25).eval())
    wanted = tonsor.prune(trained, torch.zeros(1, 3, 32, 32), budget="macs=60%")[0]
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), wanted(x))
    again = ("prune", "zoo:resnet20", *NARROW, "--macs", "80%", "--weights", str(slim))
    assert cli(*again, "--json") == 0
    assert json.loads(capsys.readouterr().out)["params"]["before"] < 17_500


def test_random_weights_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("prune", "zoo:resnet20", *NARROW, "--macs", "60%") == 0
    assert "the weights were random" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("zoo:resnet57",), "Did you mean resnet56"),
        (("zoo:",), "does not say which model"),
        (("resnet56",), "Perhaps zoo:resnet56?"),
        (("zoo:resnet56", "--args", '{"shortcut": "C"}'), "must be 'A' or 'A-mean' or 'B'"),
        (("zoo:resnet56", "--args", "{"), "--args takes JSON"),
        (("zoo:resnet56", "--weights", "absent.pt"), "absent.pt"),
        (("zoo:resnet56", "--weights", "weights.pt"), "it fits 'resnet20'"),
        (("zoo:resnet56", "--weights", "text.pt"), "neither a safetensors file nor"),
    ],
)
def test_a_mistake_is_told_in_words(
    arguments: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(zoo.build("resnet20").state_dict(), "weights.pt")
    Path("text.pt").write_text("no weights", "utf-8")
    assert cli("inspect", *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in " ".join(printed.err.split())
