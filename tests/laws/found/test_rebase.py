"""A later plan that needs an attribute mended which the earlier one left alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import tonsor
from tonsor.axes.carry import carried, originals
from tonsor.types import Leaf, concat, product


class OneByOne(nn.Module):
    """Heads, each of which is treated by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.each = 2, 3
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).view(len(x), self.heads, self.each)
        weights = (y @ y.transpose(1, 2)).softmax(-1)
        return self.down((weights @ y).flatten(1))


def test_a_later_plan_brings_its_mends_along() -> None:
    model, x = OneByOne(), torch.randn(2, 5)
    heads = tonsor.inspect(model, x)
    assert [g.name for g in heads.prunable] == ["up.weight[0].0"]
    earlier = tonsor.plan(heads, ratios={"up.weight[0].0": 0.5})
    slim = earlier.apply(model)

    each = tonsor.inspect(slim, x, head_dims=True)
    assert [g.name for g in each.prunable] == ["up.weight[0]"]  # of one head, it has another name
    later = tonsor.plan(each, ratios={"up.weight[0]": 0.67})
    slimmer = later.apply(slim)
    assert (slimmer.heads, slimmer.each) == (1, 2)

    at_once = later.rebase(earlier).apply(model)
    assert (at_once.heads, at_once.each) == (1, 2)


def test_names_of_a_cut_model_are_not_taken_for_those_of_its_original() -> None:
    """Of `w = (w.0 × w.1) × w.2` a cut to one `w.0` leaves `w.0 × w.1`, which is another w.1."""
    a, b, c = Leaf("w.0", 2), Leaf("w.1", 3), Leaf("w.2", 4)
    before = {"w": (product(product(a, b), c),)}
    after = {"w": (product(Leaf("w.0", 3), Leaf("w.1", 4)),), "v": (Leaf("w.2", 5),)}
    found = originals(after, before, {"w.0": 1})
    assert found == {"w.0": b, "w.1": c, "w.2": Leaf("w.2'", 5)}
    assert carried(product(Leaf("w.1", 4), Leaf("w.2", 5)), found) == product(c, Leaf("w.2'", 5))


def test_segments_of_a_cut_model_are_found_in_its_original() -> None:
    a, b = Leaf("a", 4), Leaf("b", 3)
    before = {"w": (concat(a, concat(b, a)),)}
    assert originals({"w": (concat(Leaf("x", 2), Leaf("y", 5)),)}, before, {"a": 2}) == {
        "x": a, "y": concat(b, a)
    }  # fmt: skip
    assert set(originals({"w": (concat(Leaf("x", 3), Leaf("y", 4)),)}, before, {"a": 2})) == {
        "x", "y"
    }  # fmt: skip
