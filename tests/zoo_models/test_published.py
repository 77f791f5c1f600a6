"""Published weights give the accuracies that are known of them, on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tonsor import zoo

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def images(data_dir: Path) -> tuple[Tensor, Tensor]:
    """1,000 images that the networks have not been trained on."""
    raw = np.fromfile(data_dir / "cifar10" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    pixels = torch.from_numpy(raw[:, 1:].reshape(-1, 3, 32, 32).copy())
    return (pixels / 255 - MEAN) / STD, torch.from_numpy(raw[:, 0].astype(np.int64))


@pytest.mark.parametrize(("depth", "correct"), [(20, 915), (32, 928), (44, 933), (56, 926)])
def test_published_weights_are_as_accurate_as_they_were(
    data_dir: Path, images: tuple[Tensor, Tensor], depth: int, correct: int
) -> None:
    path = data_dir / "weights" / f"cifar10_resnet{depth}.safetensors"
    model = zoo.load(f"resnet{depth}", path)
    x, labels = images
    assert len(labels) == 1000
    with torch.inference_mode():
        found = torch.cat([model(part).argmax(1) for part in x.split(250)])
    assert abs(int((found == labels).sum()) - correct) <= 1
