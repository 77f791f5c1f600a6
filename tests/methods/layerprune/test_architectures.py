"""The networks of LayerPrune's tables cost what the method specification says, to its digits."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.errors import PlanError, SelectionError
from tonsor.methods.layerprune import (
    ARCHITECTURES,
    Table3,
    architecture_plan,
    published_network,
    table3,
)

# Section 3.8 of the method specification: accuracy, layers gone, filters gone, MAC and parameters
# in millions. It gives both forms of LayerPrune-2 the MACs of the first; 351.00 is worked out here.
GIVEN: dict[str, tuple[float, tuple[int, ...], int, str, str]] = {
    "VGG19": (73.11, (), 0, "398.18", "20.09"),
    "weight norm": (73.01, (), 106, "379.54", "19.29"),
    "ECC": (72.71, (), 1_995, "248.08", "7.87"),
    "slimming": (72.32, (), 2_753, "252.02", "4.99"),
    "Taylor": (72.61, (), 1_364, "331.66", "10.93"),
    "LayerPrune-2": (73.60, (13, 14), 1_024, "379.31", "15.37"),
    "LayerPrune-2, Taylor": (73.60, (12, 13), 1_024, "351.00", "15.37"),
    "LayerPrune-5": (74.80, (11, 12, 13, 14, 15), 2_560, "294.37", "8.28"),
}
PIXELS = torch.zeros(1, 3, 32, 32)


@functools.cache
def counted() -> Table3:
    return table3({"LayerPrune-5": 0.7})


@functools.cache
def vgg19() -> Anatomy:
    torch.manual_seed(0)
    return tonsor.inspect(zoo.build("vgg19", classes=100, bias=True), PIXELS)


def by_hand(filters: Iterable[int]) -> tuple[int, int]:
    """MACs and parameters of a VGG19, from the sizes of its pictures and nothing else."""
    sides = [32] * 2 + [16] * 2 + [8] * 4 + [4] * 4 + [2] * 4
    inputs, macs, params = 3, 0, 0
    for outputs, side in zip(filters, sides, strict=True):
        if outputs:
            macs += 9 * inputs * outputs * side**2
            params += 9 * inputs * outputs + 3 * outputs
            inputs = outputs
    return macs + 100 * inputs, params + 100 * inputs + 100


@pytest.mark.parametrize("name", GIVEN)
def test_a_row_of_the_table_to_the_digits_given(name: str) -> None:
    accuracy, layers, filters, macs, params = GIVEN[name]
    (row,) = [r for r in counted().rows if r.published.name == name]
    published = row.published
    assert (published.accuracy, published.layers_gone) == (accuracy, layers)
    assert published.filters_gone == filters
    assert (f"{row.macs / 1e6:.2f}", f"{row.params / 1e6:.2f}") == (macs, params)
    assert (f"{published.macs:.2f}", f"{published.params:.2f}") == (macs, params)
    assert (row.macs, row.params) == by_hand(published.filters)


def test_the_table_has_these_rows_and_five_poolings_in_each() -> None:
    assert list(GIVEN) == list(ARCHITECTURES) == [r.published.name for r in counted().rows]
    for row in ARCHITECTURES.values():
        assert len(row.filters) == 16
        assert [i for i, w in enumerate(row.widths) if w == "M"] == [2, 5, 10, 15, 20]


def test_the_table_as_text_has_what_is_counted_beside_what_is_given() -> None:
    header, *lines = str(counted()).splitlines()
    assert header.split("  ")[0] == "network"
    cells = {c[0]: c[1:] for c in (re.split(r"\s{2,}", line) for line in lines)}
    assert cells["LayerPrune-5"] == [
        "74.80", "11, 12, 13, 14, 15", "2,560", "294.37 M", "294.37 M", "8.28 M", "8.28 M", "70.00"
    ]  # fmt: skip
    assert cells["VGG19"][-1] == "-"
    assert [line for line in lines if line.startswith("note: ")] == lines[len(GIVEN) :]


def test_biases_are_those_of_the_convolutions_and_tell_the_conventions_apart() -> None:
    """Without a bias in each convolution no more than some rows would be right."""
    params = {name: by_hand(row.filters)[1] - sum(row.filters) for name, row in
              ARCHITECTURES.items()}  # fmt: skip
    right = [n for n, p in params.items() if f"{p / 1e6:.2f}" == GIVEN[n][-1]]
    assert right == ["slimming", "Taylor", "LayerPrune-5"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_plan_cuts_vgg19_to_the_network(name: str) -> None:
    anatomy = vgg19()
    plan = architecture_plan(anatomy, name, by="random")
    slim = plan.apply(anatomy.model)  # proven
    network = published_network(name)
    assert [p.shape for p in slim.parameters()] == [p.shape for p in network.parameters()]
    assert [b.shape for b in slim.buffers()] == [b.shape for b in network.buffers()]
    cost = anatomy.cost_without(plan.drops)
    found = by_hand(ARCHITECTURES[name].filters)
    assert (cost.macs(plan.counts), cost.params(plan.counts)) == found
    assert plan.made_by["architecture"] == name
    network.load_state_dict(
        dict(zip(network.state_dict(), slim.state_dict().values(), strict=True))
    )
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), slim.eval()(x))


def test_the_best_filters_stay() -> None:
    anatomy = vgg19()
    plan = architecture_plan(anatomy, "ECC", by="l1")
    scores = tonsor.score(anatomy, "l1").values
    widths = zip(ARCHITECTURES["ECC"].filters, ARCHITECTURES["VGG19"].filters, strict=True)
    counts = [kept for kept, whole in widths if kept < whole]
    for (name, kept), count in zip(plan.keep.items(), counts, strict=True):
        best = torch.as_tensor(scores[name]).topk(count).indices.sort().values
        assert kept == tuple(best.tolist())


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "close": (lambda: published_network("LayerPrune"), SelectionError, "did you mean LayerPrune-5"),
    "far": (lambda: table3({"zzz": 0.5}), SelectionError, "'zzz'; it has 'VGG19', 'weight norm'"),
    "percent": (lambda: table3({"ECC": 72}), SelectionError, "a fraction from 0 to 1, got 72"),
    "other": (
        lambda: architecture_plan(
            tonsor.inspect(zoo.build("vgg16", width=0.1), PIXELS), "LayerPrune-5"
        ),
        PlanError,
        "this model's convolutions are others",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_of_the_table_is_refused(case: str) -> None:
    ask, kind, said = REFUSED[case]
    with pytest.raises(kind, match=said):
        ask()


# ---------------------------------------------------------------- blocks of ResNet-56

EACH = 4_718_592
SAVED = {"layer1": 4_672, "layer2": 18_560, "layer3": 73_984}


def without(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Delete blocks from a copy, as one would by hand."""
    left = copy.deepcopy(model)
    for name in sorted(names, reverse=True):  # the last first, for the others then keep their place
        stage, number = name.split(".")
        del left.get_submodule(stage)[int(number)]  # type: ignore[index]
    return left


@pytest.mark.parametrize(
    "names",
    [
        ["layer1.0"],
        ["layer1.4", "layer1.5", "layer1.6"],
        ["layer2.1", "layer3.8"],
        ["layer1.8", "layer2.8", "layer3.1", "layer3.2"],
        [f"layer{stage}.{i}" for stage in (1, 2, 3) for i in range(1, 9)],
    ],
    ids=lambda names: str(len(names)),
)
def test_each_block_of_resnet56_costs_the_same(names: list[str]) -> None:
    model = zoo.build("resnet56")
    cost = tonsor.inspect(without(model, names), PIXELS).cost
    assert cost.macs() == cost.total("mac_conv") == 125_485_696 - len(names) * EACH
    assert cost.params() == 853_018 - sum(SAVED[n.split(".")[0]] for n in names)


def test_up_to_four_blocks_of_resnet56_as_the_specification_prints_them() -> None:
    model = zoo.build("resnet56", classes=100)
    left = [without(model, [f"layer1.{i}" for i in range(k)]) for k in range(5)]
    macs = [tonsor.inspect(m, PIXELS).cost.macs() / 1e6 for m in left]
    assert [f"{m:.2f}" for m in macs] == ["125.49", "120.77", "116.05", "111.34", "106.62"]
