"""Parameters, multiply-accumulates and names of the zoo's models, to the unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tonsor
from tonsor import zoo

# Section 0.4 of the method specification, a row for each.
GOLDEN: list[tuple[str, dict[str, Any], int, int]] = [
    ("resnet20", {}, 40_551_040, 269_722),
    ("resnet32", {}, 68_862_592, 464_154),
    ("resnet56", {}, 125_485_696, 853_018),
    ("resnet56", {"classes": 100}, 125_491_456, 858_868),
    ("resnet56", {"shortcut": "B"}, 125_747_840, 855_770),
    ("resnet110", {}, 252_887_680, 1_727_962),
    ("resnet110", {"shortcut": "B"}, 253_149_824, 1_730_714),
    ("vgg16", {}, 313_201_664, 14_724_042),
    ("vgg16", {"bias": True}, 313_201_664, 14_728_266),
    ("vgg16", {"bias": True, "head": "hidden"}, 313_463_808, 14_991_946),
    ("vgg19", {}, 398_136_320, 20_035_018),
    ("vgg19", {"bias": True}, 398_136_320, 20_040_522),
    ("vgg19", {"bias": True, "classes": 100}, 398_182_400, 20_086_692),
    ("resnet18", {}, 1_814_073_344, 11_689_512),
    ("resnet34", {}, 3_663_761_408, 21_797_672),
    ("resnet50", {}, 4_089_184_256, 25_557_032),
    ("convnet", {}, 12_288_000 + 10_240, 89_578),
]
# Forms that the specification says cost the same.
SAME: list[tuple[str, dict[str, Any], int, int]] = [
    ("resnet56", {"shortcut": "A-mean"}, 125_485_696, 853_018),
    ("vgg16", {"ending": "mean"}, 313_201_664, 14_724_042),
    ("vgg19", {"ending": "mean", "classes": 100, "bias": True}, 398_182_400, 20_086_692),
    ("convnet", {"init": "caffe"}, 12_298_240, 89_578),
]


@pytest.mark.parametrize(("name", "variant", "macs", "params"), GOLDEN + SAME)
def test_golden_counts(name: str, variant: dict[str, Any], macs: int, params: int) -> None:
    model = zoo.build(name, **variant)
    cost = tonsor.inspect(model, torch.zeros(1, *zoo.input_shape(name))).cost
    assert cost.macs() == cost.total("mac_conv") == macs
    assert cost.params() == params
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == params
    assert not cost.uncounted


def test_each_layer_of_the_convnet() -> None:
    cost = tonsor.inspect(zoo.build("convnet"), torch.zeros(1, 3, 32, 32)).cost
    layers = {"conv1": 2_457_600, "conv2": 6_553_600, "conv3": 3_276_800, "linear": 10_240}
    found = cost.by_module()
    assert {name: found[name] for name in layers} == layers
    convolutions = sum(layers.values()) - layers["linear"]
    shares = [round(100 * layers[f"conv{i}"] / convolutions, 1) for i in (1, 2, 3)]
    assert shares == [20.0, 53.3, 26.7]
    convs = dict(zoo.build("convnet").named_parameters())
    assert [convs[f"conv{i}.weight"][0].numel() for i in (1, 2, 3)] == [75, 800, 800]


def test_the_counters_of_public_code_give_the_numbers_they_print() -> None:
    x = torch.zeros(1, 3, 32, 32)
    cost = tonsor.inspect(zoo.build("resnet110"), x).cost
    assert cost.total("spsrc_table") == pytest.approx(260.57, abs=0.005)
    cost = tonsor.inspect(zoo.build("resnet56", shortcut="B"), x).cost
    assert cost.total("flops2_conv") == 251_495_680


# ---------------------------------------------------------------- names of tensors


def conv_bn(conv: str, bn: str) -> list[str]:
    state = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{conv}.weight", *(f"{bn}.{s}" for s in state)]


@pytest.mark.parametrize(("depth", "blocks"), [(20, 3), (32, 5), (44, 7), (56, 9), (110, 18)])
@pytest.mark.parametrize("shortcut", ["A", "A-mean", "B"])
def test_cifar_resnets_name_their_tensors_as_published_files_do(
    depth: int, blocks: int, shortcut: str
) -> None:
    wanted = conv_bn("conv1", "bn1")
    for stage in (1, 2, 3):
        for block in (f"layer{stage}.{i}" for i in range(blocks)):
            wanted += conv_bn(f"{block}.conv1", f"{block}.bn1")
            wanted += conv_bn(f"{block}.conv2", f"{block}.bn2")
            if shortcut == "B" and stage > 1 and block.endswith(".0"):
                wanted += conv_bn(f"{block}.shortcut.0", f"{block}.shortcut.1")
    wanted += ["linear.weight", "linear.bias"]
    assert list(zoo.build(f"resnet{depth}", shortcut=shortcut).state_dict()) == wanted


@pytest.mark.parametrize(
    ("depth", "blocks", "convs"),
    [(18, (2, 2, 2, 2), 2), (34, (3, 4, 6, 3), 2), (50, (3, 4, 6, 3), 3)],
)
def test_imagenet_resnets_name_their_tensors_as_torchvision_does(
    depth: int, blocks: tuple[int, ...], convs: int
) -> None:
    wanted = conv_bn("conv1", "bn1")
    for stage, number in enumerate(blocks, 1):
        for block in (f"layer{stage}.{i}" for i in range(number)):
            for i in range(1, convs + 1):
                wanted += conv_bn(f"{block}.conv{i}", f"{block}.bn{i}")
            if block.endswith(".0") and (stage > 1 or convs == 3):
                wanted += conv_bn(f"{block}.downsample.0", f"{block}.downsample.1")
    wanted += ["fc.weight", "fc.bias"]
    model = zoo.build(f"resnet{depth}")
    assert list(model.state_dict()) == wanted
    if depth == 50:  # torchvision has the stride in the 3x3 convolution
        assert model.get_submodule("layer2.0.conv1").stride == (1, 1)
        assert model.get_submodule("layer2.0.conv2").stride == (2, 2)


def test_vgg_names_its_tensors_as_torchvision_does() -> None:
    state = zoo.build("vgg16", bias=True).state_dict()
    convs = [k for k, v in state.items() if v.dim() == 4]
    places = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    assert convs == [f"features.{i}.weight" for i in places]
    assert list(state)[-2:] == ["classifier.weight", "classifier.bias"]
