"""SPSRC's configurations give the published sizes to the unit, and keep the filters they should."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.criteria.score import score
from tonsor.errors import PlanError, SelectionError
from tonsor.methods.spsrc import (
    CONFIGURATIONS,
    NOTES,
    PUBLISHED,
    find_configuration,
    numbered,
    published_model,
    recipe_for,
    spsrc_plan,
    table1,
)
from tonsor.types import Pin


@functools.cache
def anatomy_of(name: str) -> Anatomy:
    """The network of a configuration, in the authors' form."""
    torch.manual_seed(0)
    shape = zoo.input_shape(CONFIGURATIONS[name].model)
    return tonsor.inspect(published_model(name), torch.zeros(1, *shape))


@functools.cache
def anatomy(model: str, **variant: Any) -> Anatomy:
    torch.manual_seed(0)
    net = zoo.build(model, **variant)
    return tonsor.inspect(net, torch.zeros(1, *zoo.input_shape(model)))


# ---------------------------------------------------------------- sizes, counted without tonsor


def resnet_by_hand(
    stages: Sequence[tuple[int, int, int]],
    removed: Sequence[float],
    skipped: Sequence[int],
    stem: tuple[int, int],
    classes: int,
    projected: bool,
) -> tuple[int, int]:
    """MACs and parameters; stages are (blocks, width, side), the stem (kernel, side)."""
    inputs, number = stages[0][1], 2
    kernel, side = stem
    params = 3 * inputs * kernel**2 + 2 * inputs
    macs = 3 * inputs * kernel**2 * side**2
    for (blocks, width, side), ratio in zip(stages, removed, strict=True):
        for _ in range(blocks):
            inner = width if number in skipped else int(width * (1 - ratio))
            weights = 9 * inner * (inputs + width)
            if projected and inputs != width:
                weights += inputs * width
                params += 2 * width
            params += weights + 2 * inner + 2 * width
            macs += weights * side**2
            inputs, number = width, number + 2
    return macs + inputs * classes, params + (inputs + 1) * classes


def vgg_by_hand(filters: int) -> tuple[int, int]:
    """MACs and parameters of VGG16 with biases, less some filters of convolutions 1 and 8-13."""
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    sides = [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    widths = [32, *widths[1:7], *(w - filters for w in widths[7:])]
    pairs = list(zip([3, *widths], widths, strict=False))
    params = sum(9 * i * o + 3 * o for i, o in pairs) + 11 * widths[-1] - widths[-1] + 10
    macs = sum(9 * i * o * s**2 for (i, o), s in zip(pairs, sides, strict=True))
    return macs + 10 * widths[-1], params


def cifar(blocks: int, removed: Sequence[float], skipped: Sequence[int]) -> tuple[int, int]:
    stages = [(blocks, 16, 32), (blocks, 32, 16), (blocks, 64, 8)]
    return resnet_by_hand(stages, removed, skipped, (3, 32), 10, projected=False)


def imagenet(removed: Sequence[float]) -> tuple[int, int]:
    stages = [(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)]
    skipped = (2, 8, 14, 16, 26, 28, 30, 32)
    return resnet_by_hand(stages, removed, skipped, (7, 112), 1000, projected=True)


SIZES = {
    "vgg16-1": (206_146_048, 5_264_522, vgg_by_hand(256)),
    "vgg16-2": (181_961_984, 2_754_186, vgg_by_hand(384)),
    "vgg16-3": (174_736_000, 2_051_978, vgg_by_hand(448)),
    "resnet56-1": (86_483_584, 727_032, cifar(9, (0.6, 0.3, 0.1), (16, 20, 38, 54))),
    "resnet56-2": (71_295_616, 465_078, cifar(9, (0.6, 0.4, 0.6), (16, 18, 20, 34, 38, 54))),
    "resnet56-3": (44_974_720, 301_376, cifar(9, (0.8, 0.8, 0.8), (16, 18, 20, 34, 38, 54))),
    "resnet110-1": (155_124_352, 1_168_424, cifar(18, (0.5, 0.4, 0.3), (36, 38, 74))),
    "resnet110-2": (110_002_816, 962_214, cifar(18, (0.7, 0.6, 0.4), (36, 38, 74))),
    "resnet34-1": (2_782_269_440, 19_469_372, imagenet((0.5, 0.6, 0.4, 0.0))),
    "resnet34-2": (2_265_657_344, 17_883_420, imagenet((0.8, 0.8, 0.7, 0.3))),
}
# In millions. Those of VGG are without its classifier, those of the ResNets with it.
PRINTED = {
    "vgg16-1": ("206.14", "5.265"),
    "vgg16-2": ("181.96", "2.754"),
    "vgg16-3": ("174.74", "2.052"),
    "resnet56-1": ("86.48", "0.727"),
    "resnet56-2": ("71.30", "0.465"),
    "resnet56-3": ("44.97", "0.301"),
    "resnet110-1": ("155.12", "1.168"),
    "resnet110-2": ("110.00", "0.962"),
}


def test_every_configuration_has_its_size_here() -> None:
    assert set(SIZES) == set(CONFIGURATIONS)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_to_the_unit(name: str) -> None:
    macs, params, by_hand = SIZES[name]
    assert by_hand == (macs, params)
    whole = anatomy_of(name)
    counts = spsrc_plan(whole, name, by="l1").counts
    assert (whole.cost.total("mac_conv", counts), whole.cost.params(counts)) == (macs, params)


@pytest.mark.parametrize("name", PRINTED)
def test_sizes_as_they_were_printed(name: str) -> None:
    cost, counts = anatomy_of(name).cost, spsrc_plan(anatomy_of(name), name, by="l1").counts
    macs = cost.macs(counts)
    if name.startswith("vgg"):
        macs -= cost.by_module(counts)["classifier"]
    assert (f"{macs / 1e6:.2f}", f"{cost.params(counts) / 1e6:.3f}") == PRINTED[name]


@pytest.mark.parametrize("name", ["resnet56-3", "vgg16-3"])
def test_the_slim_network_is_of_that_size_and_proven(name: str) -> None:
    slim = spsrc_plan(anatomy_of(name), name, by="l1").apply(anatomy_of(name).model)
    assert sum(p.numel() for p in slim.parameters()) == SIZES[name][1]
    assert slim(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", [n for n in CONFIGURATIONS if "resnet" in n])
def test_rounding_down_is_that_of_exact_arithmetic(name: str) -> None:
    found = CONFIGURATIONS[name]
    for number, removed in found.removed.items():
        for size in (16, 32, 64, 128, 256, 512):
            exact = size * (1 - Fraction(str(removed)))
            assert found.kept(number, size) == exact.__floor__()


# ---------------------------------------------------------------- which are cut


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_first_convolutions_are_cut_or_skipped(name: str) -> None:
    found, whole = CONFIGURATIONS[name], anatomy_of(name)
    convs = numbered(whole)
    assert len(convs) == found.convolutions
    ratios = found.ratios(whole)
    assert list(ratios) == [convs[n - 1].name for n in found.removed]
    assert all(1 <= kept < whole.by_name[f"{n}.weight[0]"].size for n, kept in ratios.items())
    assert not set(found.removed) & set(found.skipped)
    if "resnet" in name:
        assert {*found.removed, *found.skipped} == set(range(2, found.convolutions, 2))
    else:
        assert set(found.removed) == {1, *range(8, 14)}


@pytest.mark.parametrize(
    ("model", "variant", "number", "where"),
    [
        ("resnet110", {}, 36, "layer1.17.conv1"),
        ("resnet110", {"shortcut": "B"}, 38, "layer2.0.conv1"),
        ("resnet110", {"shortcut": "B"}, 74, "layer3.0.conv1"),
        ("resnet34", {}, 32, "layer4.2.conv1"),
        ("vgg16", {}, 8, "features.24"),
        ("resnet56", {}, 1, "conv1"),
    ],
)
def test_numbers_pass_over_shortcuts(
    model: str, variant: Mapping[str, str], number: int, where: str
) -> None:
    assert numbered(anatomy(model, **variant))[number - 1].name == where


def filter_norms(by: str, weight: Tensor, side: int) -> Tensor:
    """The norm of each filter; the matrix of a convolution holds an outer tap less often."""
    if by == "l1":
        return weight.abs().flatten(1).sum(1)
    times = torch.tensor([side - 1.0, side, side - 1.0])
    return (weight**2 * times[:, None] * times).flatten(1).sum(1).sqrt()


@pytest.mark.parametrize("by", ["l1", "frobenius"])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_largest_filters_of_each_layer_stay(by: str, reverse: bool) -> None:
    whole = anatomy_of("resnet56-2")
    plan = spsrc_plan(whole, "resnet56-2", by=by, reverse=reverse)
    ratios = CONFIGURATIONS["resnet56-2"].ratios(whole)
    assert set(plan.keep) == {f"{n}.weight[0]" for n in ratios}
    for layer, kept in ratios.items():  # what is read of a filter has no say
        weight = whole.parameters[f"{layer}.weight"].detach().double()
        norms = filter_norms(by, weight, 32 // 2 ** (int(layer[5]) - 1))
        order = norms.argsort(descending=not reverse)
        assert plan.keep[f"{layer}.weight[0]"] == tuple(sorted(order[:kept].tolist()))


def test_the_spectral_norm_is_what_judges_if_nothing_else_is_said() -> None:
    whole = anatomy_of("resnet56-3")
    plan = spsrc_plan(whole, "resnet56-3")
    assert plan.made_by["by"] == "spectral"
    assert plan.counts == spsrc_plan(whole, "resnet56-3", by="l1").counts
    assert plan.keep != spsrc_plan(whole, "resnet56-3", by="l1").keep


def test_scores_of_ones_own_are_taken_as_they_are() -> None:
    whole = anatomy_of("resnet56-1")
    scores = score(whole, "l2", combine="producer")
    assert (
        spsrc_plan(whole, "resnet56-1", scores).keep == spsrc_plan(whole, "resnet56-1", "l2").keep
    )


def test_a_plan_says_which_configuration_it_is() -> None:
    made = spsrc_plan(anatomy_of("resnet56-1"), "resnet56-1", by="l1", reverse=True).made_by
    assert (made["method"], made["configuration"]) == ("spsrc", "resnet56-1")
    assert made["by"] == "reversed l1"


# ---------------------------------------------------------------- what does not fit


class Added(nn.Module):
    """Thirteen convolutions, each added to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleList(nn.Conv2d(40, 40, 3, padding=1) for _ in range(13))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.body:
            x = x + conv(x).relu()
        return x


def test_a_model_that_does_not_fit_is_refused_with_the_reason() -> None:
    fits = CONFIGURATIONS["resnet56-1"].ratios
    with pytest.raises(PlanError, match=r"resnet56, which has 55 convolutions .* has 19"):
        fits(anatomy("resnet20"))
    with pytest.raises(PlanError, match=r"vgg16, which has 13 .* has 16"):
        spsrc_plan(anatomy("vgg19"), "vgg16-1", by="l1")
    with pytest.raises(PlanError, match=r"cuts convolution 8, 'features.24', and would leave none"):
        CONFIGURATIONS["vgg16-2"].ratios(anatomy("vgg16", width=0.75))
    pinned = anatomy("resnet56").pinned_also(
        {"layer1.1.conv1.weight[0]": Pin("literal", "said so")}
    )
    with pytest.raises(PlanError, match=r"convolution 4, 'layer1.1.conv1', which can't .* said so"):
        fits(pinned)
    net = nn.Sequential(nn.Conv2d(3, 40, 1), Added(), nn.Conv2d(40, 2, 1))
    added = tonsor.inspect(net, torch.zeros(1, 3, 4, 4))
    with pytest.raises(PlanError, match="whose channels belong to 14 convolutions"):
        CONFIGURATIONS["vgg16-1"].ratios(added)


def test_a_wider_or_narrower_model_fits_where_ratios_are_fractions() -> None:
    kept = CONFIGURATIONS["resnet56-3"].ratios(anatomy("resnet56", width=2.0))
    assert kept["layer3.1.conv1"] == 25  # 128 times 0.2, rounded down
    with pytest.raises(PlanError, match=r"convolution 2, .* would leave none of its 4 filters"):
        CONFIGURATIONS["resnet56-3"].ratios(anatomy("resnet56", width=0.25))


def test_an_unknown_configuration_is_refused_with_close_names() -> None:
    with pytest.raises(SelectionError, match="called 'resnet-110-2'; did you mean resnet110-2"):
        spsrc_plan(anatomy_of("resnet56-1"), "resnet-110-2")
    with pytest.raises(SelectionError, match="it has vgg16-1, vgg16-2"):
        find_configuration("?")


# ---------------------------------------------------------------- retraining


def test_retraining_is_that_of_the_paper() -> None:
    for name in CONFIGURATIONS:
        recipe = recipe_for(name)
        assert recipe.lr == 1e-3
        if name.startswith("resnet34"):
            wanted = (30, 256, 1e-4, ((10, 0.1), (20, 0.1)))
        elif name == "resnet110-1":
            wanted = (50, 128, 5e-4, ((20, 0.1), (40, 0.1)))
        else:
            wanted = (80, 128, 5e-4, ((20, 0.1), (40, 0.1), (60, 0.2)))
        assert (recipe.epochs, recipe.batch, recipe.weight_decay, recipe.steps) == wanted
        assert (recipe.momentum, recipe.nesterov) == (0.9, False)


# ---------------------------------------------------------------- the table


def test_the_table_is_counted_anew_to_the_printed_place() -> None:
    table = table1()
    assert [row.published for row in table.rows] == list(PUBLISHED)
    for row in table.rows:
        printed = row.published
        if printed.method == "GAL-0.5":
            assert (row.flops, row.params, row.macs) == (None, None, None)
            continue
        assert row.flops is not None
        assert row.params is not None
        places = 3 if printed.configuration == "resnet110-1" else 2
        assert round(row.flops, places) == printed.flops
        assert round(row.params / 1e6, 2) == printed.params
        if printed.configuration:
            assert (row.macs, row.params) == SIZES[printed.configuration][:2]
    dense = table.rows[0]
    assert (dense.macs, dense.params) == (252_887_680, 1_727_962)


def test_what_was_measured_stands_beside_what_was_published() -> None:
    lines = str(table1({("nuclear", "resnet110-2"): 0.91234})).splitlines()
    (line,) = [line for line in lines if line.startswith("nuclear") and "resnet110-2" in line]
    assert line.split()[2] == "93.03"
    assert line.split()[-1] == "91.23"
    assert [line.split()[-1] for line in lines[1:-3] if "91.23" not in line] == ["-"] * 8
    assert lines[-3:] == [f"note: {note}" for note in NOTES]


@pytest.mark.parametrize(
    ("measured", "said"),
    [({("spectral", ""): 0.9}, "no row"), ({("dense", ""): 93.7}, "fraction from 0 to 1")],
    ids=["row", "percent"],
)
def test_a_measurement_that_has_no_place_is_refused(
    measured: Mapping[tuple[str, str], float], said: str
) -> None:
    with pytest.raises(SelectionError, match=said):
        table1(measured)


def test_the_contradictions_that_are_noted_are_there() -> None:
    rows = {(p.method, p.configuration): p for p in PUBLISHED}
    first = {m: rows[m, "resnet110-1"].accuracy for m in ("l1", "nuclear", "frobenius")}
    assert max(first["nuclear"], first["frobenius"]) < first["l1"]
    assert "nuclear (93.29) and frobenius (93.12) are below l1 (93.3)" in NOTES[0]
    assert rows["dense", ""].flops == pytest.approx(0.50893 / 2 * 1024, abs=0.005)


# ---------------------------------------------------------------- trained weights


def test_trained_filters_are_told_apart_better_than_in_reverse(data_dir: Path) -> None:
    model = zoo.load("resnet56", data_dir / "weights" / "cifar10_resnet56.safetensors")
    whole = tonsor.inspect(model, torch.zeros(1, 3, 32, 32))
    plan = spsrc_plan(whole, "resnet56-1", by="frobenius")
    other = spsrc_plan(whole, "resnet56-1", by="frobenius", reverse=True)
    x = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.eval()(x)
        near, far = ((p.mask(model).eval()(x) - wanted).norm() for p in (plan, other))
    assert near < far
    assert replace(plan, keep={}) == replace(other, keep={}, made_by=plan.made_by)
