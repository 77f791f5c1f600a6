"""SPSRC's study: its configurations, its figures, and the paper's own table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tonsor
from tonsor import zoo
from tonsor.study.base import Base
from tonsor.study.paired import packed
from tonsor.study.spsrc import SpsrcStudy, measured
from tonsor.study.spsrc_figures import draw_spsrc

IMAGES = 360  # test images of the digits


def study(network: str) -> SpsrcStudy:
    return SpsrcStudy(base=Base(network=network, weights="none", data="digits", images=100))


def test_the_trials_are_the_configurations_of_the_network() -> None:
    found = study("resnet110")
    assert found.configurations == ("resnet110-1", "resnet110-2")
    assert len(found.trials()) == 2 * len(found.by)
    assert study("resnet20").configurations == ()


def test_what_is_measured_goes_into_the_rows_that_were_printed() -> None:
    results = {
        f"{name}-{by}": {
            "settings": {"configuration": name, "by": by, "seed": 0},
            "answers": {"tuned": packed(np.arange(IMAGES) < right)},
        }
        for name, by, right in (
            ("resnet110-1", "spectral", 180), ("resnet110-1", "random", 90),
            ("resnet110-2", "l1", 270),
        )
    }  # fmt: skip
    assert measured(study("resnet110"), results) == {("spectral", "resnet110-1"): 0.5}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    torch.manual_seed(0)
    net = zoo.build("resnet56", width=0.5)
    draw_spsrc(tonsor.inspect(net, torch.zeros(1, 3, 16, 16)), "resnet56", folder)
    return folder


def test_sensitive_layers_are_drawn_beside_robust_ones(drawn: Path) -> None:
    data = json.loads((drawn / "norms.json").read_text("utf-8"))
    numbers = [layer["number"] for layer in data["layers"]]
    assert set(data["skipped"]) == {16, 18, 20, 34, 38, 54}
    assert set(data["skipped"]) <= set(numbers)
    assert len(numbers) == len(set(numbers)) == 12
    assert all(len(layer["scores"]) in (8, 16, 32) for layer in data["layers"])


def test_fixed_ratios_differ_in_which_and_a_threshold_in_how_many(drawn: Path) -> None:
    fixed, free = (
        json.loads((drawn / f"structure-{t}.json").read_text("utf-8"))
        for t in ("fixed", "threshold")
    )
    assert fixed["kept"]["spectral"] == fixed["kept"]["l1"]
    assert any(share < 1 for share in fixed["overlap"]["l1"].values())
    assert free["kept"]["spectral"] != free["kept"]["l1"]
    assert {p.suffix for p in drawn.iterdir()} == {".svg", ".json"}
