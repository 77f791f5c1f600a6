"""Run a command as from a shell, and read what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tonsor.cli import main


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """Return what a command prints as JSON."""
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what a command is refused with."""
    capsys.readouterr()
    assert main(words) == 2
    return " ".join(capsys.readouterr().err.split())


def place(folder: Path, name: str) -> list[str]:
    """Say where a run, and what comes out of it, go."""
    return ["--run", str(folder / name), "--out", str(folder / f"{name}.tonsor")]
