"""The numbers of a figure lie beside it, and both files come together or not at all."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from tonsor.report.raw import save_figure


@dataclass(frozen=True, slots=True)
class Layer:
    name: str
    scores: tuple[float, ...]
    counts: MappingProxyType[int, int]


def test_what_is_read_back_is_what_was_drawn(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(3, 2))
    layer = Layer("conv", (0.1, math.nan, math.inf), MappingProxyType({4: np.int64(7)}))  # type: ignore[dict-item]
    data = {"array": numbers, "layers": [layer], "set": {"b", "a"}, "one": np.float32(0.5),
            "yes": True, "none": None}  # fmt: skip
    beside = save_figure(tmp_path / "new" / "norms.v2.svg", "<svg/>", data)
    assert beside == tmp_path / "new" / "norms.v2.json"
    assert (tmp_path / "new" / "norms.v2.svg").read_text() == "<svg/>"
    found = json.loads(beside.read_text())
    assert np.array_equal(np.array(found.pop("array")), numbers)  # to the last bit
    assert found == {
        "layers": [{"name": "conv", "scores": [0.1, None, None], "counts": {"4": 7}}],
        "set": ["a", "b"], "one": 0.5, "yes": True, "none": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "svg", "data", "error"),
    [
        ("figure.svg", "<svg new/>", {"bad": object()}, ValueError),
        ("figure.svg", "<svg new/>", b"bytes", ValueError),
        ("figure.svg", "\ud800", [2], UnicodeEncodeError),  # the numbers were written by then
        ("figure.png", "<svg new/>", [2], ValueError),
    ],
)
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, name: str, svg: str, data: object, error: type[Exception]
) -> None:
    save_figure(tmp_path / "figure.svg", "<svg/>", [1])
    with pytest.raises(error):
        save_figure(tmp_path / name, svg, data)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "figure.svg": "<svg/>",
        "figure.json": "[\n 1\n]\n",
    }
