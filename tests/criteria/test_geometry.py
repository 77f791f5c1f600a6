"""What the layers of a model look like as convolutions of pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.criteria.geometry import Geometry, geometries, kernels


def found(model: nn.Module, *shape: int) -> dict[str, Geometry]:
    return geometries(tonsor.inspect(model.eval(), torch.randn(2, *shape)))


def test_a_convolution_is_told_as_it_is() -> None:
    conv = nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=1)
    assert found(conv, 3, 9, 12) == {
        "weight": Geometry((3, 5), (2, 1), (1, 0), (1, 2), (9, 12), (5, 4))
    }


@pytest.mark.parametrize(
    ("padding", "kernel", "dilation", "expected"),
    [("same", 3, 1, 1), ("same", 5, 2, 4), ("same", 4, 1, 1), ("valid", 3, 1, 0)],
)
def test_padding_in_words(padding: str, kernel: int, dilation: int, expected: int) -> None:
    conv = nn.Conv2d(3, 4, kernel, padding=padding, dilation=dilation)
    geometry = found(conv, 3, 11, 12)["weight"]
    assert geometry.padding == (expected, expected)
    shrunk = 0 if padding == "same" else kernel - 1
    assert geometry.output_size == (11 - shrunk, 12 - shrunk)


def test_one_dimension_has_height_one() -> None:
    conv = nn.Conv1d(3, 4, 5, stride=2, padding=2, dilation=1)
    assert found(conv, 3, 11)["weight"] == Geometry((1, 5), (1, 2), (0, 2), (1, 1), (1, 11), (1, 6))


def test_linear_layers_are_one_pixel() -> None:
    one = Geometry((1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (1, 1))
    assert found(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)), 5) == {
        "0.weight": one, "2.weight": one,
    }  # fmt: skip


def test_what_has_no_picture_is_left_out() -> None:
    model = nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ConvTranspose3d(4, 2, 3))
    assert found(model, 2, 5, 5, 5) == {}
    model = nn.Sequential(nn.ConvTranspose2d(2, 4, 3), nn.Conv2d(4, 2, 3))
    assert list(found(model, 2, 5, 5)) == ["1.weight"]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_shared_weights_have_the_first_picture_under_all_names() -> None:
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), (8, 8), (8, 8))
    assert found(Shared(), 4, 8, 8) == {"first.weight": geometry, "second.weight": geometry}


def test_seen_from_the_other_side_it_is_the_same_convolution() -> None:
    geometry = Geometry((3, 3), (2, 2), (1, 1), (1, 1), (8, 8), (4, 4))
    other = geometry.seen_from(made=False)
    assert geometry.made
    assert not other.made
    assert other.seen_from(made=True) == geometry


def test_views_become_kernels() -> None:
    weight = torch.arange(2 * 3 * 5).view(2, 3, 5)
    line = Geometry((1, 5), (1, 1), (0, 0), (1, 1), (1, 9), (1, 5))
    assert kernels(weight, line).shape == (2, 3, 1, 5)
    grouped = torch.arange(4 * 2 * 3 * 3 * 3).view(4, 2, 3, 3, 3)  # [piece, group, filter, ...]
    square = Geometry((3, 3), (1, 1), (1, 1), (1, 1), (8, 8), (8, 8))
    shown = kernels(grouped, square)
    assert shown.shape == (4, 6, 3, 3)
    assert torch.equal(shown[1, 4], grouped[1, 1, 1])
    linear = Geometry((1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (1, 1))
    assert kernels(torch.zeros(4, 7), linear).shape == (4, 7, 1, 1)
