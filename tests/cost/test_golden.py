"""The golden counts of the method specification, to the unit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.cost.nets import accounted, cifar_resnet, image, imagenet_resnet, spp_convnet, vgg

CIFAR = [
    ("ResNet20-A", lambda: cifar_resnet(20), 40_551_040, 269_722),
    ("ResNet32-A", lambda: cifar_resnet(32), 68_862_592, 464_154),
    ("ResNet56-A", lambda: cifar_resnet(56), 125_485_696, 853_018),
    ("ResNet56-A-100", lambda: cifar_resnet(56, classes=100), 125_491_456, 858_868),
    ("ResNet56-B", lambda: cifar_resnet(56, "B"), 125_747_840, 855_770),
    ("ResNet110-A", lambda: cifar_resnet(110), 252_887_680, 1_727_962),
    ("ResNet110-B", lambda: cifar_resnet(110, "B"), 253_149_824, 1_730_714),
    ("VGG16", lambda: vgg(16, bias=False), 313_201_664, 14_724_042),
    ("VGG16-bias", lambda: vgg(16, bias=True), 313_201_664, 14_728_266),
    ("VGG16-head", lambda: vgg(16, bias=True, head=True), 313_463_808, 14_991_946),
    ("VGG19", lambda: vgg(19, bias=False), 398_136_320, 20_035_018),
    ("VGG19-bias", lambda: vgg(19, bias=True), 398_136_320, 20_040_522),
    ("VGG19-bias-100", lambda: vgg(19, bias=True, classes=100), 398_182_400, 20_086_692),
    ("SPP-ConvNet", spp_convnet, 12_288_000 + 10_240, 89_578),
]
IMAGENET = [
    ("ResNet18", lambda: imagenet_resnet(18), 1_814_073_344, 11_689_512),
    ("ResNet34", lambda: imagenet_resnet(34), 3_663_761_408, 21_797_672),
    ("ResNet50", lambda: imagenet_resnet(50), 4_089_184_256, 25_557_032),
]


@pytest.mark.parametrize(
    ("build", "macs", "params", "size"),
    [pytest.param(*row[1:], 32, id=row[0]) for row in CIFAR]
    + [pytest.param(*row[1:], 224, id=row[0]) for row in IMAGENET],
)
def test_golden_counts_at_any_batch_size(
    build: Callable[[], nn.Module], macs: int, params: int, size: int
) -> None:
    with torch.device("meta"):
        model = build()
    for batch in (1, 2):
        account = accounted(model, image(size, batch))
        assert account.total("mac_conv") == macs
        assert account.macs() == macs
        assert account.params() == params
        assert not account.uncounted


def test_each_layer_of_the_spp_convnet() -> None:
    costs = accounted(spp_convnet(), image(32)).by_module()
    assert {k: v for k, v in costs.items() if v} == {
        "": 12_298_240,
        "0": 2_457_600,
        "4": 6_553_600,
        "8": 3_276_800,
        "12": 10_240,
    }
