"""The figure of chosen criteria says what the plan leaves, in the colour of who chose it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.report.svg import height, shapes, texts
from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError
from tonsor.methods.lfpc import LearnedCriteria, Search
from tonsor.methods.pools.base import Family
from tonsor.plans import Plan
from tonsor.report.canvas import COLOURS, INK, NEUTRAL
from tonsor.report.chosen import SEVERAL, Left, what_is_left
from tonsor.report.chosen_criteria import chosen_criteria

NAMES = ("l1", "l2", "geometric_median")


class Residual(nn.Module):
    """A stem and two blocks on one stream, and a layer that no choice is made for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(), Block())
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(self.norm(self.stem(x)).relu()))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.norm(self.second(self.first(x).relu()))).relu()


def found_by(family: Family, criteria: Sequence[str] = NAMES) -> tuple[Plan, Anatomy]:
    torch.manual_seed(0)
    model = Residual()
    anatomy = tonsor.inspect(model, torch.randn(2, 3, 6, 6))
    method = LearnedCriteria(
        model, anatomy, batches=[(torch.randn(4, 3, 6, 6), None)], budget="macs=50%", steps=1,
        family=family, criteria=criteria, loss=lambda out, _: out.square().mean(),
        search=Search(tolerance=1.0), choice="random",
    )  # fmt: skip
    method.after_step(0)
    return method.finish(), anatomy


def test_layers_of_a_group_have_the_widths_of_the_slim_model_and_share_their_site() -> None:
    plan, anatomy = found_by("channels")
    layers = {x.layer: x for x in what_is_left(plan, anatomy)}
    assert list(layers) == [
        "stem", "blocks.0.first", "blocks.0.second", "blocks.1.first", "blocks.1.second", "last"
    ]  # fmt: skip
    slim = plan.apply(anatomy.model)
    for name, layer in layers.items():
        assert layer.left == slim.get_submodule(name).out_channels, name
        assert layer.of == anatomy.model.get_submodule(name).out_channels, name
    assert layers["stem"].site == layers["blocks.0.second"].site == layers["blocks.1.second"].site
    assert len({layers[n].site for n in ("stem", "blocks.0.first", "blocks.1.first")}) == 3
    assert (layers["last"].site, layers["last"].criterion) == ("", "")
    for name in ("stem", "blocks.0.first"):
        layer = layers[name]
        assert layer.criterion == plan.made_by["sites"][layer.site]["criterion"]


@pytest.mark.parametrize("family", ["stripes", "columns"])
def test_stripes_and_columns_are_counted_in_the_weights(family: Family) -> None:
    plan, anatomy = found_by(family)
    masked = plan.mask(anatomy.model)
    layers = what_is_left(plan, anatomy)
    chosen = [x for x in layers if x.criterion]
    assert len(chosen) >= 2
    for layer in layers:
        weight = masked.get_parameter(f"{layer.layer}.weight").detach()
        along = 1 if family == "stripes" else 0
        there = weight.abs().sum(along) > 0
        assert (layer.left, layer.of) == (int(there.sum()), there.numel()), layer


def test_of_a_block_that_goes_nothing_is_left() -> None:
    plan, anatomy = found_by("blocks", ("l1", "l2"))
    layers = {x.layer: x for x in what_is_left(plan, anatomy)}
    (gone,) = (d.name for d in plan.drops)
    for name, layer in layers.items():
        assert layer.left == (0 if name.startswith(gone) else layer.of), name
        assert bool(layer.criterion) is name.startswith("blocks"), name


def test_a_plan_of_other_making_and_another_model_are_refused() -> None:
    plan, anatomy = found_by("channels")
    other = tonsor.plan(anatomy, "macs=50%", by="l1")
    with pytest.raises(PlanError, match="does not say which criterion"):
        what_is_left(other, anatomy)
    with pytest.raises(PlanError):
        what_is_left(plan, tonsor.inspect(nn.Conv2d(1, 2, 1), torch.randn(1, 1, 2, 2)))


# ---------------------------------------------------------------- the figure

SOME = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 40), st.sampled_from([*NAMES, "", SEVERAL])),
    min_size=2, max_size=12,
)  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(SOME)
def test_bars_are_as_high_as_what_is_left_in_the_colour_of_the_criterion(
    drawn: list[tuple[int, int, str]],
) -> None:
    layers = [Left(str(i), min(left, of), of, str(i), by) for i, (of, left, by) in enumerate(drawn)]
    svg = chosen_criteria(layers, criteria=NAMES)
    outlines = [b for b in shapes(svg, INK, "stroke") if len(b) == 5]
    assert len(outlines) == len(layers)
    unit = height(outlines[0]) / layers[0].of
    assert [height(o) / unit for o in outlines] == pytest.approx(
        [x.of for x in layers], abs=2e-3 * max(x.of for x in layers)
    )
    for name, colour in zip(NAMES, COLOURS, strict=False):
        mine = [x.left for x in layers if x.criterion == name]
        bars = [b for b in shapes(svg, colour) if len(b) == 4]
        assert [height(b) / unit for b in bars] == pytest.approx(
            mine, abs=2e-3 * max(x.of for x in layers)
        )


def test_the_key_names_all_criteria_and_a_line_joins_what_goes_together() -> None:
    layers = [
        Left("a", 3, 4, "x", "l1"), Left("b", 2, 4, "y", "l1"), Left("c", 3, 4, "x", "l1"),
        Left("d", 4, 4), Left("e", 2, 4, "z", "l1"), Left("f", 2, 4, "z", "l1"),
    ]  # fmt: skip
    svg = chosen_criteria(layers, criteria=NAMES, conditions=["net"], y="stripes left")
    assert svg == chosen_criteria(layers, criteria=NAMES, conditions=["net"], y="stripes left")
    told = [" ".join(t.split()) for t in texts(svg)]
    assert {*NAMES, "nothing may go", "before", "stripes left"} <= set(told)
    assert any("a line below joins layers" in t for t in told)
    grey = [b for b in shapes(svg, NEUTRAL) if len(b) == 4]
    assert len(grey) == 1
    middle = {o: (b[0][0] + b[1][0]) / 2 for o, b in zip(
        "abcdef", (b for b in shapes(svg, INK, "stroke") if len(b) == 5), strict=True
    )}  # fmt: skip
    lines = [b for b in shapes(svg, INK, "stroke") if len(b) == 2]
    ends = sorted((line[0][0], line[-1][0]) for line in lines)
    wanted = [(middle["a"], middle["c"]), (middle["e"], middle["f"])]
    assert [x for end in ends for x in end] == pytest.approx([x for w in wanted for x in w])
    assert not any("a line below" in t for t in texts(chosen_criteria(layers[:2])))


def test_lines_that_cross_have_rows_of_their_own() -> None:
    layers = [Left(str(i), 1, 2, site, "l1") for i, site in enumerate("xyxy")]
    lines = [b for b in shapes(chosen_criteria(layers), INK, "stroke") if len(b) == 2]
    assert len({line[0][1] for line in lines}) == len(lines) == 2


def test_more_criteria_than_colours_are_told_apart() -> None:
    names = [f"c{i}" for i in range(8)]
    layers = [Left(name, 1, 2, name, name) for name in names]
    svg = chosen_criteria(layers, criteria=names)
    assert svg.count("<pattern") == 2
    with pytest.raises(ValueError, match="24 criteria"):
        chosen_criteria(layers, criteria=[str(i) for i in range(25)])


@pytest.mark.parametrize(
    ("layers", "what"),
    [([], "at least one layer"), ([Left("a", 3, 2)], "'a' can't have 3 of 2"),
     ([Left("a", -1, 2)], "'a'"), ([Left("a", 0, 0)], "0 of 0")],
)  # fmt: skip
def test_what_can_not_be_drawn_is_refused(layers: list[Left], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        chosen_criteria(layers)
