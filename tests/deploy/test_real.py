"""A network that was trained, on real images: deployed, it gives the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.kernels.library import state
from tonsor.train import Batches, open_data
from tonsor.train.data.source import Subset

CUTS: dict[str, Callable[..., Any]] = {
    "channels": tonsor.prune, "stripes": tonsor.prune_stripes, "columns": tonsor.prune_columns,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(data_dir: Path) -> tuple[Tensor, Tensor]:
    data = open_data(f"cifar10:{data_dir / 'cifar10'}")
    batches = Batches(
        Subset(data.test, torch.arange(300)), size=300, mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225), shuffle=False, seed=0,
    )  # fmt: skip
    ((x, labels),) = batches
    return x, labels


@pytest.fixture(scope="module")
def trained(data_dir: Path) -> nn.Module:
    path = data_dir / "weights" / "cifar10_resnet20.safetensors"
    return tonsor.zoo.load("resnet20", path).eval()


@pytest.mark.usefixtures("deployed_wins")
@pytest.mark.parametrize("cut", ["nothing", *CUTS])
@torch.no_grad()
def test_a_trained_network_answers_the_same_by_kernels(
    trained: nn.Module, images: tuple[Tensor, Tensor], cut: str
) -> None:
    if state().how == "none":
        pytest.skip(f"needs compiled kernels: {state().why}")
    x, labels = images
    slim = trained
    if cut != "nothing":
        slim, _ = CUTS[cut](trained, x[:1], budget="macs=70%", quiet=True)
    fast, report = tonsor.deploy(slim, x[:2], rounds=1, ways=["kernel"], quiet=True)
    assert report.returned == "deployed"
    assert {row.chosen.partition("/")[0] for row in report.rows} == {"kernel"}
    wanted, got = slim(x), fast(x)
    assert (got - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    assert torch.equal(got.argmax(1), wanted.argmax(1))
    if cut == "nothing":
        assert (got.argmax(1) == labels).float().mean() > 0.88
