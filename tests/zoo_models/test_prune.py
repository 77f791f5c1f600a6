"""Every model of the zoo can be cut to half of its work, with proof."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tonsor
from tonsor import zoo

FORMS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in zoo.names()),
    ("resnet20", {"shortcut": "A-mean"}),
    ("resnet20", {"shortcut": "B"}),
    ("vgg16", {"bias": True, "head": "hidden", "ending": "mean"}),
]


@pytest.mark.parametrize(("name", "variant"), FORMS)
def test_half_of_the_work_goes_with_proof(name: str, variant: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = zoo.build(name, classes=10, width=0.25, **variant).eval()
    side = min(zoo.input_shape(name)[1], 64)
    slim, report = tonsor.prune(model, torch.randn(2, 3, side, side), budget="macs=50%")
    before, after = report.macs
    assert 0.45 * before < after <= 0.5 * before
    assert report.proof is not None
    assert type(slim) is type(model)
    again = tonsor.inspect(slim, torch.zeros(1, 3, side, side)).cost
    assert (again.macs(), again.params()) == (after, report.params[1])
