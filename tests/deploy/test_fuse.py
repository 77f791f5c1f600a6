"""Whatever a network does between its convolutions, fusing changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.deploy.nets import shaken
from tonsor.deploy.capture import capture, sites_of
from tonsor.deploy.fuse import fuse, fused_parts
from tonsor.graph.inputs import Inputs

Step = tuple[str, int, int]


class Program(nn.Module):
    """Runs steps, each of which reads and writes some of three tensors of the same shape."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = list(steps)
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1, bias=bool(i)) for i in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2, affine=bool(i)) for i in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        found = [x * 1, x * 2, x * 3]
        for what, a, b in self.steps:
            found[a] = self.step(what, found[a], found[b], b)
        return [t.clone() for t in found]

    def step(self, what: str, one: Tensor, other: Tensor, index: int) -> Tensor:
        if what == "conv":
            return self.convs[index % 2](other)
        if what == "norm":
            return self.norms[index % 2](one)
        if what == "block":  # what is fused whole, unless something comes between
            return F.relu(self.norms[1](self.convs[index % 2](other)) + other)
        if what == "view":
            return other[:, :]  # from here on, both share memory
        if what == "times_":
            return one.mul_(0.5)
        return {
            "relu": lambda: F.relu(one), "relu_": lambda: F.relu_(one),
            "add": lambda: one + other, "add_": lambda: one.add_(other),
            "twice": lambda: torch.add(one, other, alpha=2),
            "drop": lambda: F.dropout(one, 0.5, False),
        }[what]()  # fmt: skip


WHAT = (
    "conv", "conv", "conv", "norm", "norm", "relu", "relu", "relu_", "add", "add", "add_", "add_",
    "times_", "view", "twice", "drop", "block",
)  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WHAT), st.integers(0, 2), st.integers(0, 2)), max_size=9)


def fused(model: nn.Module, x: Tensor) -> tuple[Any, list[str]]:
    found = capture(model, Inputs(x))
    fuse(found.graph)
    return found.graph, [fused_parts(site) for site in sites_of(found.graph)]


@settings(max_examples=15, deadline=None)
@given(steps=STEPS)
@torch.no_grad()
def test_a_program_computes_the_same_after_fusing(steps: list[Step]) -> None:
    model = shaken(Program(steps)).double().requires_grad_(False)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    graph, _ = fused(model, x.clone())
    for got, wanted in zip(graph(x.clone()), model(x.clone()), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ([("conv", 0, 1), ("norm", 0, 0), ("add", 0, 1), ("relu", 0, 0)], ["bn+add+relu"]),
        ([("conv", 0, 1), ("norm", 0, 1), ("add_", 0, 1), ("relu_", 0, 0)], ["bn+add+relu"]),
        ([("conv", 0, 1), ("add_", 1, 0), ("relu_", 1, 1), ("conv", 0, 1)], ["add+relu", ""]),
        ([("conv", 0, 1), ("drop", 0, 0), ("relu", 0, 0)], ["relu"]),
        ([("conv", 0, 1), ("times_", 1, 1), ("relu", 0, 0)], [""]),
        ([("conv", 0, 1), ("twice", 0, 1)], [""]),
        ([("conv", 0, 1), ("add", 0, 0), ("relu", 0, 0)], [""]),
        ([("conv", 0, 1), ("relu", 0, 0), ("norm", 0, 0)], ["relu"]),
        ([("conv", 0, 1), ("norm", 0, 0), ("norm", 0, 1)], ["bn"]),
        ([("conv", 0, 1), ("view", 2, 0), ("relu", 0, 0)], [""]),
        ([("view", 2, 1), ("conv", 0, 1), ("add_", 1, 0), ("view", 0, 1)], [""]),
        ([("conv", 0, 1), ("add_", 1, 0), ("view", 0, 1)], ["add"]),
        ([("conv", 0, 1), ("add", 0, 2), ("times_", 2, 2), ("relu", 0, 0)], ["add"]),
    ],
)
def test_what_is_fused_and_what_is_not(steps: list[Step], parts: list[str]) -> None:
    # The last tensor read is returned too, so that what else is in the program is not left out.
    model = shaken(Program(steps)).requires_grad_(False)
    assert fused(model, torch.randn(2, 2, 5, 5))[1] == parts


def test_a_norm_of_running_statistics_that_change_is_not_folded() -> None:
    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            mean: Any = self.norm.running_mean
            out = self.norm(self.conv(x))
            mean.add_(1)
            return out

    model, x = shaken(Moving()).requires_grad_(False), torch.randn(2, 2, 4, 4)
    other = copy.deepcopy(model)
    graph, parts = fused(model, x)
    assert parts == [""]
    for _ in range(2):
        torch.testing.assert_close(graph(x)[0], other(x))


class OwnStatistics(nn.Module):
    """A norm that has running statistics, and takes those of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.norm.running_mean, self.norm.running_var
        return F.batch_norm(self.conv(x), mean, var, training=True, momentum=0.0)


NONE = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))


@pytest.mark.parametrize("model", [NONE, OwnStatistics()], ids=["none", "own"])
def test_a_norm_that_takes_its_own_statistics_is_not_folded(model: nn.Module) -> None:
    model, x = shaken(model).requires_grad_(False), torch.randn(2, 2, 4, 4)
    graph, parts = fused(model, x)
    assert parts == [""]
    torch.testing.assert_close(graph(x)[0], model(x))


def _one_more(module: nn.Module, given: Any, out: Any) -> Tensor:
    return out + 1


def test_a_convolution_that_is_watched_is_left_alone() -> None:
    model, x = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()).eval(), torch.randn(2, 2, 4, 4)
    model[0].register_forward_hook(_one_more)
    model[1].register_forward_hook(_one_more)
    graph, parts = fused(model.requires_grad_(False), x)
    assert not parts
    torch.testing.assert_close(graph(x)[0], model(x))


def test_views_are_free_of_how_memory_is_laid() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).view(x.shape[0], -1)

    model, x = Viewed().eval().requires_grad_(False), torch.randn(2, 2, 4, 4)
    graph, _ = fused(model, x)
    for site in sites_of(graph):
        site.register_forward_hook(lambda m, i, o: o.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(graph(x)[0], model(x))
