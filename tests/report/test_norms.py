"""Norms of filters are those of the weights, and each layer is a curve of its colour."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.report.svg import shapes, texts
from tonsor.report.depth import depth_colours
from tonsor.report.norms import filter_norms, norm_densities

SPREAD = {"a": [1.0, 1.5, 2.0, 4.0], "b": [0.2, 0.3, 0.35], "c": [2.0, 2.0, 2.0], "d": [3.0]}


class Odd(nn.Module):
    """Convolutions of all kinds: transposed, grouped, shared, weight-normed, and a bare kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(8, 12, 3, padding=1, groups=2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(12, 12, 1))
        self.kernel = nn.Parameter(torch.randn(5, 12, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.grouped(self.stem(x)))
        return nn.functional.conv2d(self.normed(self.up(x)), self.kernel)


def test_norms_are_those_of_what_makes_each_channel() -> None:
    model = Odd()
    found = filter_norms(tonsor.inspect(model, torch.randn(1, 2, 6, 6)))
    assert list(found) == ["stem", "grouped", "up", "normed", "kernel"]
    for name, weight in (
        ("stem", model.stem.weight), ("grouped", model.grouped.weight),
        ("normed", torch.as_tensor(model.normed.weight)), ("kernel", model.kernel),
    ):  # fmt: skip
        wanted = [float(filter_.detach().square().sum().sqrt()) for filter_ in weight]
        assert found[name] == pytest.approx(wanted, rel=1e-5)
    # A transposed one is linear: the norm of a channel is that of its answers to single ones.
    wanted = torch.zeros(12)
    for channel in range(8):
        one = torch.zeros(1, 8, 9, 9)
        one[0, channel, 4, 4] = 1
        bare = nn.functional.conv_transpose2d(one, model.up.weight, padding=1, groups=2)
        wanted += bare.detach().square().sum((0, 2, 3))
    assert found["up"] == pytest.approx(wanted.sqrt().tolist(), rel=1e-5)


def test_curves_go_from_red_to_blue_and_marks_stand_for_layers_without_a_spread() -> None:
    svg = norm_densities(SPREAD, conditions=["resnet", "costs $5"])
    assert svg == norm_densities(SPREAD, conditions=["resnet", "costs $5"])
    colours = depth_colours(4)
    reds, blues = ([int(c[i : i + 2], 16) for c in colours] for i in (1, 5))
    assert reds == sorted(reds, reverse=True)
    assert blues == sorted(blues)
    drawn = [len(shapes(svg, colour, "stroke")) for colour in colours]
    assert drawn == [1, 1, 0, 0]
    told = {t.replace(r"\$", "$") for t in texts(svg)}
    assert "1" in told
    assert "convolution" in told
    assert any("all norms are the same in 3, 4" in " ".join(t.split()) for t in told)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(0.01, 5), min_size=3, max_size=12, unique=True).filter(
    lambda v: np.ptp(v) > 0.05
))  # fmt: skip
def test_a_curve_is_the_sum_of_kernels(values: list[float]) -> None:
    other = [v + 0.5 for v in values]
    svg = norm_densities({"a": values, "b": other})
    (curve,) = shapes(svg, depth_colours(2)[0], "stroke")
    x, y = (np.array([p[i] for p in curve]) for i in (0, 1))
    width = np.std(values, ddof=1) * len(values) ** -0.2
    left = max(min(values) - 3 * width, 0)
    at = left + (x - x[0]) / (x[-1] - x[0]) * (max(values) + 3 * width - left)
    wanted = np.exp(-(((at[:, None] - np.array(values)) / width) ** 2) / 2).sum(1)
    heights = wanted / wanted.max()
    bottom, top = (y[np.argmin(heights)], y[np.argmax(heights)])
    low = heights.min()
    drawn = low + (y - bottom) / (top - bottom) * (1 - low)
    assert drawn == pytest.approx(heights, abs=2e-2)


@pytest.mark.parametrize(("count", "named"), [(32, True), (33, False)])
def test_many_layers_have_a_bar_of_colours_instead_of_a_legend(count: int, named: bool) -> None:
    norms = {f"conv{i}": [1.0 + i / 50, 1.2 + i / 60, 1.5] for i in range(count)}
    svg = norm_densities(norms)
    numbers = {t for t in texts(svg) if t.isdecimal()}
    assert ({str(i + 1) for i in range(count)} <= numbers) is named
    assert str(count) in numbers
    assert "<image" not in svg


@pytest.mark.parametrize(
    ("norms", "what"),
    [({}, "no convolutions"), ({"a": []}, "norms of 'a'"), ({"a": [[1.0]]}, "norms of 'a'"),
     ({"a": [1.0, float("nan")]}, "norms of 'a'")],
)  # fmt: skip
def test_what_can_not_be_drawn_is_refused(norms: dict[str, list[float]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        norm_densities(norms)
