"""Norms carry one number for each channel, and these must go with their channels, in order."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cutting import cut, verdicts


class Normed(nn.Module):
    """A LayerNorm between two layers, with weights that tell each other apart."""

    norm: Any

    def __init__(self, norm: nn.Module, width: int = 40) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(8, width), norm, nn.Linear(width, 4)
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1.0, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).relu())


@pytest.mark.parametrize("removed", [0.3, 0.5, 0.65, 0.75, 0.9])
def test_a_layer_norm_keeps_the_parameters_of_the_channels_that_stay(removed: float) -> None:
    model = Normed(nn.LayerNorm(40))
    made = cut(model, torch.randn(2, 8), ratios={"first": 1 - removed}, floor=1)

    kept = made.kept("first.weight[0]")
    assert len(kept) == round(40 * (1 - removed))
    assert made.slim.norm.normalized_shape == (len(kept),)
    for layer, name in (
        ("norm", "weight"),
        ("norm", "bias"),
        ("first", "weight"),
        ("first", "bias"),
    ):
        whole = getattr(getattr(model, layer), name)
        assert torch.equal(getattr(getattr(made.slim, layer), name), whole.index_select(0, kept))
    assert torch.equal(made.slim.last.weight, model.last.weight.index_select(1, kept))


@pytest.mark.parametrize("removed", [0.3, 0.65, 0.9])
def test_an_rms_norm_does_too(removed: float) -> None:
    model = Normed(nn.RMSNorm(40))
    made = cut(model, torch.randn(2, 8), ratios={"first": 1 - removed}, floor=1)
    kept = made.kept("first.weight[0]")
    assert made.slim.norm.normalized_shape == (len(kept),)
    assert torch.equal(made.slim.norm.weight, model.norm.weight.index_select(0, kept))


def test_a_norm_over_fewer_channels_is_said_to_be_another_norm() -> None:
    made = cut(Normed(nn.LayerNorm(40)), torch.randn(2, 8), ratios={"first": 0.5})
    group = made.anatomy.by_name["first.weight[0]"]
    assert any("norm" in what for what in group.approximate)


def test_running_statistics_follow_a_batch_norm() -> None:
    norm = nn.BatchNorm1d(40)
    model = Normed(norm).eval()
    assert norm.running_mean is not None
    nn.init.normal_(norm.running_mean)
    made = cut(model, torch.randn(2, 8), ratios={"first": 0.5})
    kept = made.kept("first.weight[0]")
    assert torch.equal(made.slim.norm.running_mean, norm.running_mean[kept])
    assert made.slim.norm.num_features == 20


def test_a_group_norm_loses_whole_groups_or_the_same_from_each() -> None:
    model = Normed(nn.GroupNorm(4, 40))
    made = cut(
        model, torch.randn(2, 8), ratios={"first.weight[0].0": 0.5, "first.weight[0].1": 0.6}
    )
    assert verdicts(made.anatomy, "first.weight[0]") == ["free", "free"]  # groups, channels in each
    assert (made.slim.norm.num_groups, made.slim.norm.num_channels) == (2, 2 * 6)
    kept = made.kept("first.weight[0]")
    assert torch.equal(made.slim.norm.weight, model.norm.weight[kept])
    assert kept.unique().numel() == 12
    assert len({i // 10 for i in kept.tolist()}) == 2


class Standardised(nn.Conv2d):
    """A convolution whose filters are standardised by a batch norm over the weight itself."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.rand(outputs) + 0.5)

    def forward(self, input: Tensor) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        even = F.batch_norm(flat, None, None, weight=self.gain, training=True, momentum=0.0)
        return F.conv2d(input, even.reshape_as(self.weight), self.bias, padding=1)


def test_filters_standardised_over_fewer_inputs_are_proven_and_said_to_differ() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Standardised(3, 12), nn.ReLU(), Standardised(12, 8), nn.ReLU(),
                          nn.Conv2d(8, 2, 1)).eval()  # fmt: skip
    made = cut(model, torch.randn(2, 3, 6, 6), ratios={"0": 0.5, "2": 0.5}, floor=1)
    assert len(made.kept("0.weight[0]")) == 6
    assert len(made.kept("2.weight[0]")) == 4
    group = made.anatomy.by_name["0.weight[0]"]
    assert any("batch_norm" in what for what in group.approximate)
    assert not made.anatomy.by_name["2.weight[0]"].approximate
