"""The page on learned criteria: what it shows runs, and is spelled as the command line is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tonsor.cli import options
from tonsor.cli.choose_options import Prune
from tonsor.cli.lfpc_options import Lfpc
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.train import Recipe, open_data, split
from tonsor.zoo import build

PAGE = Path(__file__).resolve().parents[1] / "docs" / "learned.md"
PYTHON, COMMANDS = 5, 2


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def commands() -> list[list[str]]:
    lines = [line for text in blocks("") for line in re.sub(r"\\\n", "", text).splitlines()]
    return [line.removeprefix("$ ").split() for line in lines if line.startswith("$ ")]


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    shown = [(torch.randn(4, 1, 8, 8), torch.randint(10, (4,))) for _ in range(24)]
    names: dict[str, Any] = {
        "tonsor": tonsor, "torch": torch, "x": torch.randn(1, 1, 8, 8),
        "model": build("resnet20", width=0.25, channels=1).eval(),
        "splits": split(open_data("digits"), limit=100, validation=20),
        "recipe": Recipe(epochs=1, batch=64),
        "loader": shown, "other_images": shown[:5],
    }  # fmt: skip
    code = blocks("python")
    assert len(code) == PYTHON
    whole = tonsor.inspect(names["model"], names["x"]).cost.macs()

    def macs() -> float:
        return tonsor.inspect(names["slim"].eval(), names["x"]).cost.macs() / whole

    exec(code[0], names)
    assert 0.45 < macs() <= 0.5
    sites = names["plan"].made_by["sites"]
    loaded = tonsor.load("slim.tonsor", build("resnet20", width=0.25, channels=1)).eval()
    torch.testing.assert_close(loaded(names["x"]), names["slim"](names["x"]))
    exec(code[1], names)
    assert names["odds"].keys() == {"l1", "l2", "geometric_median"}
    exec(code[2], names)
    assert {p.name for p in Path("runs/lfpc").glob("*.svg")} == {"criteria.svg", "odds.svg"}
    assert "<svg" in names["svg"]
    history = json.loads(Path("runs/lfpc/search/search.json").read_text("utf-8"))
    assert history["sites"] == list(sites)
    assert len(history["moments"]) == 10
    exec(code[3], names)
    assert isinstance(names["slim"].layer3[0].conv1, StripeConv2d)
    exec(code[4], names)
    assert 0.45 < macs() <= 0.5
    assert names["method"].over
    assert not any("training ended" in note for note in names["plan"].made_by["notes"])


def test_its_commands_can_be_typed() -> None:
    shown = commands()
    assert len(shown) == COMMANDS
    for program, *words in shown:
        assert program == "tonsor"
        assert isinstance(options.parse(words), options.COMMANDS[words[0]])
    command = options.parse(shown[0][1:])
    assert isinstance(command, Prune)
    assert (command.method, command.lfpc.search_epochs) == ("lfpc", 10)


def test_it_tells_all_options_and_none_that_there_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        options.parse(["prune", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    told = set(re.findall(r"`(--[a-z-]+)", PAGE.read_text("utf-8")))
    assert told <= known
    usual = Lfpc()
    for name in usual.__dataclass_fields__:
        off = "no-" * (getattr(usual, name) is True)
        option = f"--{off}{name.replace('_', '-')}"
        assert option in told or f"{option} " in PAGE.read_text("utf-8"), option
