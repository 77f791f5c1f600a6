"""Accuracy comes back on real images: the cycle of `bench/cycle.py`, cut short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [("resnet20", 20_497_024, 135_754), ("resnet56", 62_964_352, 428_074)],
)
def test_a_pass_over_few_images_brings_most_of_it_back(
    data_dir: Path, name: str, macs: int, params: int
) -> None:
    from cycle import cycle  # pyright: ignore[reportMissingImports]

    found = cycle(data_dir, name, [1], images=2_000)
    assert found["macs"][1] == macs
    assert found["params"][1] == params
    whole, cut, tuned = (found[k]["percent"] for k in ("whole", "cut", "passes 1"))
    assert cut < whole
    assert whole - tuned < 0.5 * (whole - cut)
