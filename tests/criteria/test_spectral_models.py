"""The norms of whole models: what `score` gives is the norm of the matrix of each place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tonsor
from tests.criteria.convolution import NORMS, as_published, dense, norms
from tonsor import zoo
from tonsor.anatomy import Anatomy
from tonsor.criteria.geometry import Geometry
from tonsor.criteria.score import score
from tonsor.criteria.spectral import nuclear, spectral
from tonsor.families.channels import parts
from tonsor.types import Group


def pair(sizes: Any) -> tuple[int, int]:
    height, width = sizes
    return height, width


def inspected(model: nn.Module, *shape: int) -> Anatomy:
    return tonsor.inspect(model.eval(), torch.randn(2, *shape))


def expected(anatomy: Anatomy, group: Group, stride: str) -> list[tuple[bool, dict[str, Tensor]]]:
    """The norms of each place of a group, from what the modules say, and whether it makes it."""
    modules, rows = dict(anatomy.model.named_modules()), []
    for part in parts(anatomy, group):
        module = modules[part.member.tensor.removesuffix(".weight")]
        weight = part.of(anatomy.parameters[part.member.tensor])
        where = Geometry((1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (1, 1), part.made)
        if isinstance(module, nn.Conv2d):
            conv = next(c for c in anatomy.convs if c.weight == part.member.tensor)
            known = (
                module.kernel_size, module.stride, module.padding, module.dilation,
                conv.input_size, conv.output_size,
            )  # fmt: skip
            where = Geometry(*map(pair, known), made=part.made)
        where = as_published(where) if stride == "ignored" else where
        kernels = weight.reshape(len(weight), -1, *where.kernel)
        rows.append((part.made, norms(kernels, where)))
    return rows


@pytest.mark.parametrize("stride", ["ignored", "exact"])
def test_a_residual_network(stride: str) -> None:
    torch.manual_seed(0)
    anatomy = inspected(zoo.build("resnet20", width=0.25), 3, 12, 12)
    found = {
        (name, combine): score(anatomy, f"{name}:stride={stride}", combine=combine).values
        for name in NORMS
        for combine in ("producer", "mean")
    }
    groups = [g for g in anatomy.prunable if g.size <= 8]  # wider ones differ in nothing else
    assert len(groups) == 7
    for group in groups:
        rows = expected(anatomy, group, stride)
        assert {made for made, _ in rows} == {True, False}
        for name in NORMS:
            made = np.mean([row[name].numpy() for is_made, row in rows if is_made], axis=0)
            every = np.mean([row[name].numpy() for _, row in rows], axis=0)
            for combine, wanted in (("producer", made), ("mean", every)):
                values = found[name, combine][group.name]
                np.testing.assert_allclose(values, wanted, rtol=2e-6)


def test_the_sides_of_published_networks() -> None:
    """The picture of a filter is as large as what it makes, which is the norm's only scale."""
    vgg = inspected(zoo.build("vgg16", width=0.0625), 3, 32, 32)
    sides = [c.output_size[0] for c in vgg.convs]
    assert sides == [32, 32, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2]
    resnet = inspected(zoo.build("resnet56", width=0.25), 3, 32, 32)
    assert [c.output_size[0] for c in resnet.convs] == [32] * 19 + [16] * 18 + [8] * 18
    found = score(vgg, "frobenius", combine="producer")
    for conv, side in zip(vgg.convs, sides, strict=True):
        taps = torch.tensor([side - 1, side, side - 1]).double()
        often = taps[:, None] * taps  # how often each tap of a 3x3 kernel is inside
        weight = vgg.parameters[conv.weight].detach().double()
        wanted = (weight.square() * often).sum((1, 2, 3)).sqrt()
        np.testing.assert_allclose(found.values[f"{conv.weight}[0]"], wanted.numpy(), rtol=1e-6)


def test_the_layers_of_a_plain_network() -> None:
    torch.manual_seed(1)
    anatomy = inspected(zoo.build("vgg16", width=0.0625), 3, 32, 32)
    found = {name: score(anatomy, name, combine="producer").values for name in NORMS}
    for conv in anatomy.convs:
        if conv.output_size[0] > 16:
            continue
        weight = anatomy.parameters[conv.weight].detach()[:2]
        side = pair(conv.output_size)
        where = Geometry((3, 3), (1, 1), (1, 1), (1, 1), side, side)
        wanted = (dense if conv.output_size[0] > 8 else norms)(weight, where)
        for name in NORMS:
            values = found[name][f"{conv.weight}[0]"][:2]
            np.testing.assert_allclose(values, wanted[name].numpy(), rtol=2e-6)


class Odd(nn.Module):
    """Grouped, depthwise, of one dimension, strided without a square, linear, and used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2))
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", dilation=2, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.line = nn.Conv1d(8, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = self.depthwise(self.grouped(x).relu()).relu()
        x = self.twice(self.twice(x).relu()).relu()
        return self.head(self.line(x.mean(2)).relu().mean(2))


def test_layers_of_other_kinds() -> None:
    torch.manual_seed(0)
    model = Odd()
    anatomy = inspected(model, 3, 10, 9)
    where = {
        "first": Geometry((3, 5), (2, 1), (1, 2), (1, 1), (10, 9), (5, 9)),
        "grouped": Geometry((3, 3), (1, 1), (2, 2), (2, 2), (5, 9), (5, 9)),
        "depthwise": Geometry((3, 3), (1, 1), (1, 1), (1, 1), (5, 9), (5, 9)),
        "twice": Geometry((3, 3), (1, 1), (1, 1), (1, 1), (5, 9), (5, 9)),
        "line": Geometry((1, 3), (1, 2), (0, 1), (1, 1), (1, 9), (1, 5)),
        "head": Geometry((1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (1, 1)),
    }
    for name in NORMS:
        found = score(anatomy, f"{name}:stride=exact", combine="max")
        assert found.values
        for group in anatomy.prunable:
            rows = []
            for part in parts(anatomy, group):
                module, _, _ = part.member.tensor.partition(".")
                seen = replace(where[module], made=part.made)
                view = part.of(dict(model.named_parameters())[part.member.tensor])
                kernels = view.reshape(len(view), -1, *seen.kernel)
                rows.append(norms(kernels, seen)[name].numpy())
            np.testing.assert_allclose(found.values[group.name], np.max(rows, axis=0), rtol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet20", "resnet56"])
def test_trained_weights_at_the_side_of_their_pictures(model: str, data_dir: Path) -> None:
    """Extrapolation is as near as its docstring says, and ranks the filters alike."""
    net = zoo.load(model, data_dir / "weights" / f"cifar10_{model}.safetensors")
    where = Geometry((3, 3), (1, 1), (1, 1), (1, 1), (28, 28), (28, 28), True)
    for name, weight in net.named_parameters():
        if weight.dim() == 4 and name in ("conv1.weight", "layer1.1.conv1.weight"):
            wanted = dense(weight.detach(), where)
            found = nuclear(weight.detach(), where)
            assert torch.allclose(found, wanted["nuclear"], rtol=1e-5)
            assert torch.equal(found.argsort(), wanted["nuclear"].argsort())
            largest = spectral(weight.detach(), where)
            assert torch.allclose(largest, wanted["spectral"], rtol=1e-6)
