"""The page on GPUs shows what runs, and its table is what the roofline says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tonsor.kernels.gpu.devices import KNOWN
from tonsor.kernels.gpu.roofline import Layer, choose

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "gpu.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\d+)-\d+@(\d+) \| (.*) \|$", PAGE, re.MULTILINE)


def test_its_python_runs(place: torch.device, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {
        "weight": torch.randn(8, 4, 3, 3), "bias": torch.randn(8), "x": torch.randn(1, 4, 5, 5),
        "mask": np.eye(4, 9, dtype=bool), "residual": torch.zeros(1, 8, 5, 5),
    }  # fmt: skip
    names |= {n: t.to(place) for n, t in names.items() if isinstance(t, torch.Tensor)}
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert names["y"].shape == (1, 8, 5, 5)
    said = re.search(r"print\(choice.*\)\n# (.*)", PAGE)
    assert said
    assert capsys.readouterr().out.strip() == said[1]


@pytest.mark.parametrize(("channels", "side", "rest"), ROWS)
def test_its_table_is_what_the_roofline_says(channels: str, side: str, rest: str) -> None:
    layer = Layer(int(channels), int(channels), (int(side), int(side)))
    choice = choose(layer, 64, "bfloat16", 0.3, KNOWN["H200"])
    found = choice.expected
    assert rest.split(" | ") == [
        f"{found.dense.compute * 1e6:.1f} µs", f"{found.dense.memory * 1e6:.1f} µs",
        found.dense.by, f"x{found.at_most:.1f}", f"x{found.speedup:.1f}, {choice.run}",
    ]  # fmt: skip


def test_its_table_has_every_layer() -> None:
    assert len(ROWS) == 7
