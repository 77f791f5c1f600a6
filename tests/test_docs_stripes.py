"""The page on stripes: what it shows runs, and is spelled as the command line is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tonsor.cli import options
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.train import Recipe, open_data, split
from tonsor.zoo import build

PAGE = Path(__file__).resolve().parents[1] / "docs" / "stripes.md"


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {
        "tonsor": tonsor, "torch": torch, "x": torch.randn(1, 1, 8, 8),
        "model": build("resnet20", width=0.25, channels=1).eval(),
        "splits": split(open_data("digits"), limit=100), "recipe": Recipe(epochs=1, batch=64),
    }  # fmt: skip
    code = blocks("python")
    assert len(code) == 6
    for text in code:
        exec(text, names)
    assert isinstance(names["slim"].layer3[0].conv1, StripeConv2d)
    striped = tonsor.load("ab.tonsor", names["model"])
    torch.testing.assert_close(
        striped(names["x"]), names["total"].apply(names["model"])(names["x"])
    )


def test_its_commands_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        line.removeprefix("$ ").split()
        for text in blocks("") for line in re.sub(r"\\\n", "", text).splitlines()
        if line.startswith("$ ")
    ]  # fmt: skip
    assert len(shown) == 4
    for program, *words in shown:
        assert program == "tonsor"
        assert isinstance(options.parse(words), options.COMMANDS[words[0]])
    with pytest.raises(SystemExit):
        options.parse(["prune", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"`(--[a-z-]+)", PAGE.read_text("utf-8"))) <= known
