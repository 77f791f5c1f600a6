"""The pages on stripes and columns: what they show runs, and is spelled as the command line is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import tonsor
from tonsor.cli import options
from tonsor.surgery.column_conv import ColumnConv2d
from tonsor.surgery.stripe_conv import StripeConv2d
from tonsor.train import Recipe, open_data, split
from tonsor.zoo import build

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = pytest.mark.parametrize("page", ["stripes", "columns"])
SHOWN = {"stripes": (6, 4), "columns": (5, 2)}
"""How many blocks of Python, and how many commands, a page has."""


def text_of(page: str) -> str:
    return (DOCS / f"{page}.md").read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind == language]


@PAGES
def test_its_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {
        "tonsor": tonsor, "torch": torch, "x": torch.randn(1, 1, 8, 8),
        "model": build("resnet20", width=0.25, channels=1).eval(),
        "splits": split(open_data("digits"), limit=100), "recipe": Recipe(epochs=1, batch=64),
    }  # fmt: skip
    code = blocks(page, "python")
    assert len(code) == SHOWN[page][0]
    for text in code:
        exec(text, names)
    kind = StripeConv2d if page == "stripes" else ColumnConv2d
    assert isinstance(names["slim"].layer3[0].conv1, kind)
    loaded = tonsor.load("ab.tonsor", names["model"])
    torch.testing.assert_close(loaded(names["x"]), names["total"].apply(names["model"])(names["x"]))


@PAGES
def test_its_commands_can_be_typed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        line.removeprefix("$ ").split()
        for text in blocks(page, "") for line in re.sub(r"\\\n", "", text).splitlines()
        if line.startswith("$ ")
    ]  # fmt: skip
    assert len(shown) == SHOWN[page][1]
    for program, *words in shown:
        assert program == "tonsor"
        assert isinstance(options.parse(words), options.COMMANDS[words[0]])
    with pytest.raises(SystemExit):
        options.parse(["prune", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"`(--[a-z-]+)", text_of(page))) <= known
