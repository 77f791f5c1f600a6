"""Paths through a model that the example did not take."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tonsor.api import inspect

from .cutting import cut, reasons, verdicts


class GroupedQueries(nn.Module):
    """Four heads of queries on two of keys; how many on each is stored, but rarely read.

    Without a mask the kernel finds it out from the shapes. So do all of transformers' models.
    """

    def __init__(self) -> None:
        super().__init__()
        self.repeats, self.size = 2, 6
        self.q, self.k, self.v = nn.Linear(8, 24), nn.Linear(8, 12), nn.Linear(8, 12)
        self.out = nn.Linear(24, 8)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        heads = [f(x).unflatten(-1, (-1, self.size)) for f in (self.q, self.k, self.v)]
        q, k, v = (t.transpose(1, 2) for t in heads)
        if mask is not None:
            k, v = (t.repeat_interleave(self.repeats, 1) for t in (k, v))
        x = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=mask is None)
        return self.out(x.transpose(1, 2).flatten(2))


def test_a_size_that_only_another_path_reads_follows_or_pins() -> None:
    x, mask = torch.randn(2, 5, 8), torch.ones(5, 5, dtype=torch.bool)
    anatomy = inspect(GroupedQueries(), x)
    queries = [g.name for g in anatomy.prunable if g.kind == "heads" and g.size == 2]
    made = cut(GroupedQueries(), x, ratios=dict.fromkeys(queries[1:] or queries, 0.5))
    assert made.slim(x, mask).shape == x.shape


@pytest.mark.parametrize("masked", [False, True])
def test_the_path_that_was_taken_is_right(masked: bool) -> None:
    mask = torch.ones(5, 5, dtype=torch.bool) if masked else None
    inputs = tonsor.Inputs(torch.randn(2, 5, 8), mask)
    made = cut(GroupedQueries(), inputs, "macs=50%")
    assert made.slim.q.out_features < 24


class AuxiliaryHead(nn.Module):
    """A second output, while training only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.side = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x).relu()
        return (self.last(x), self.side(x)) if self.training else self.last(x)


def test_a_head_that_only_trains_follows_or_pins() -> None:
    model = AuxiliaryHead().eval()
    anatomy = inspect(model, torch.randn(2, 8))
    if verdicts(anatomy, "first.weight[0]") == ["free"]:
        slim = cut(model, torch.randn(2, 8), ratios={"first": 0.5}).slim
        assert [out.shape[1] for out in slim.train()(torch.randn(2, 8))] == [4, 3]


class Router(nn.Module):
    """One of two layers, as the values have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(12, 4)
        self.plus, self.minus = nn.Linear(16, 12), nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last((self.plus if x.sum() > 1e3 else self.minus)(x).relu())


def test_a_layer_that_values_chose_not_to_run_is_left_whole_and_named() -> None:
    model, x = Router(), torch.randn(2, 8)
    anatomy = inspect(model, x)
    assert anatomy.graph.ran == "real"
    assert anatomy.unreached == ("plus.weight", "plus.bias")
    assert "free" not in verdicts(anatomy, "plus.weight[0]") + verdicts(anatomy, "plus.weight[1]")
    assert "not reached" in reasons(anatomy, "plus.weight[0]")[0]
    assert "values steer" in reasons(anatomy, "first.weight[0]")[0]
