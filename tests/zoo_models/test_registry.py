"""Models by name: the right one is made, and a wrong word is met with the right ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

import tonsor
from tonsor import zoo
from tonsor.errors import SelectionError
from tonsor.zoo.registry import ZOO


@pytest.mark.parametrize("name", zoo.names())
def test_models_compute_scores_for_any_width_and_number_of_classes(name: str) -> None:
    model = zoo.build(name, classes=7, width=0.1, channels=1)
    shape = zoo.input_shape(name, channels=1)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)
    assert zoo.input_shape(name) == (3, *shape[1:])
    assert ZOO[name].about
    assert model.training
    assert not zoo.load(name, width=0.1).training


def test_width_multiplies_every_layer() -> None:
    whole, half = (zoo.build("vgg16", width=w) for w in (1.0, 0.5))
    widths = [
        [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
        for model in (whole, half)
    ]
    assert [2 * w for w in widths[1]] == widths[0]
    odd = zoo.build("resnet20", width=0.3)  # 5, 10 and 20 channels: 2 before, 3 after
    assert odd(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_the_convnet_takes_images_of_another_size() -> None:
    model = zoo.build("convnet", size=28, channels=1)
    assert model(torch.zeros(1, *zoo.input_shape("convnet", size=28, channels=1))).shape == (1, 10)


def test_the_same_seed_gives_the_same_weights() -> None:
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(zoo.build("resnet20").state_dict()["layer1.0.conv1.weight"])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("resnet57", {}, r"no model called 'resnet57'\. Did you mean resnet56"),
    ("ResNet-110", {}, r"Did you mean resnet110"),
    ("cifar10_resnet20", {}, r"Did you mean resnet20"),
    ("vgg", {}, r"Did you mean vgg1"),
    ("zzz", {}, r"no model called 'zzz'\. It has convnet, vgg16"),
    ("resnet56", {"shortcuts": "B"}, r"takes no 'shortcuts'\. Did you mean shortcut=\? It takes"),
    ("resnet50", {"bias": True}, r"'resnet50' takes no 'bias'\. It takes classes, width, channels"),
    ("resnet56", {"shortcut": "C"}, r"must be 'A' or 'A-mean' or 'B', got 'C'"),
    ("vgg16", {"bias": 1}, "bias= of 'vgg16' must be True or False, got 1"),
    ("vgg16", {"classes": 0}, "classes= of 'vgg16' must be a whole number above 0, got 0"),
    ("vgg16", {"classes": 2.5}, "a whole number above 0"),
    ("vgg16", {"classes": True}, "a whole number above 0"),
    ("vgg16", {"width": 0}, "width= of 'vgg16' must be a number above 0, got 0"),
    ("vgg16", {"width": float("nan")}, "a number above 0"),
    ("vgg16", {"width": "half"}, "a number above 0"),
]


@pytest.mark.parametrize(("name", "keywords", "said"), MISTAKES)
def test_a_mistake_is_told_in_words(name: str, keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(SelectionError, match=said):
        zoo.build(name, **keywords)


def test_mistakes_are_told_about_shapes_too() -> None:
    with pytest.raises(SelectionError, match=r"no model called 'resnet2'.*resnet20"):
        zoo.input_shape("resnet2")
    with pytest.raises(SelectionError, match="takes no 'size'"):
        zoo.input_shape("resnet20", size=64)


def test_the_zoo_is_opened_only_when_asked_for() -> None:
    code = (
        "import sys, tonsor; assert 'torch' not in sys.modules and 'tonsor.zoo' not in sys.modules;"
        "print(len(tonsor.zoo.names()), 'zoo' in dir(tonsor))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(zoo.names())), "True"]
    assert tonsor.zoo is zoo
