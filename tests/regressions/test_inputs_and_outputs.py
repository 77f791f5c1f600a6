"""What goes into a model and what comes out of it may be anything, and stays what it is."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tonsor
from tonsor.api import inspect, plan

from .cutting import cut, reasons, verdicts


class Attention(nn.Module):
    """One head over a cache, which it hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 12)
        self.first, self.last = nn.Linear(12, 20), nn.Linear(20, 5)

    def forward(self, x: Tensor, *, use_cache: bool = True) -> tuple[Tensor, Any, None, int]:
        k, v = self.k(x), self.v(x)
        x = (self.q(x) @ k.mT).softmax(-1) @ v
        out = self.last(self.first(x).relu())
        return out, {"keys": k, "values": [v]} if use_cache else None, None, x.shape[1]


def test_what_a_cache_shows_is_pinned_as_an_output_and_the_rest_is_free() -> None:
    anatomy = inspect(Attention(), torch.randn(2, 3, 8))
    assert [g.name for g in anatomy.prunable] == ["first.weight[0]"]
    for place, path in (
        ("k.weight[0]", "keys"),
        ("q.weight[0]", "keys"),
        ("v.weight[0]", "values"),
    ):
        assert verdicts(anatomy, place) == ["output"]
        assert path in reasons(anatomy, place)[0]


def test_a_cache_that_is_left_out_frees_its_widths() -> None:
    inputs = tonsor.Inputs(torch.randn(2, 3, 8), use_cache=False)
    anatomy = inspect(Attention(), inputs, head_dims=True)
    slim: Any = plan(anatomy, ratios={"v": 0.5, "first": 0.5}).apply(anatomy.model)
    assert slim.v.out_features == 6
    assert slim.first.weight.shape == (10, 6)
    assert verdicts(inspect(Attention(), inputs), "v.weight[0]") == ["head_dim"]


@dataclass
class Result:
    scores: Tensor
    loss: Tensor | None = None
    count: int = 0
    label: str = "none"
    more: dict[str, Any] = field(default_factory=dict)


class ReturnsResult(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Result:
        h = self.first(x).relu()
        return Result(self.last(h), None, h.shape[1], "fine", {"input": x, "nothing": None})


def test_a_dataclass_with_none_and_integers_comes_back_as_itself() -> None:
    x = torch.randn(2, 8)
    slim = cut(ReturnsResult(), x, ratios={"first": 0.5}).slim
    out = slim(x)
    assert isinstance(out, Result)
    assert (out.loss, out.label, out.more["nothing"]) == (None, "fine", None)
    assert out.more["input"] is x
    assert out.count == 8  # it says how wide the hidden layer is, and that is what it is now
    assert out.scores.shape == (2, 5)


class ManyInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Linear(8, 16), nn.Linear(6, 16), nn.Linear(16, 5)

    def forward(
        self,
        left: Tensor,
        pair: dict[str, Any],
        *rest: Tensor,
        scale: float = 1.0,
        mask: Any = None,
    ) -> Tensor:
        x = (self.left(left) + scale * self.right(pair["right"][0])).relu()
        x = x if mask is None else x.masked_fill(mask[:, None], 0.0)
        return self.last(x) + sum(rest, x.new_zeros(()))


@pytest.mark.parametrize("masked", [False, True])
def test_positional_nested_and_keyword_inputs(masked: bool) -> None:
    mask = torch.tensor([True, False]) if masked else None
    pair = {"right": [torch.randn(2, 6)], "unused": None}
    inputs = tonsor.Inputs(
        torch.randn(2, 8), pair, torch.randn(5), torch.randn(5), scale=0.5, mask=mask
    )
    made = cut(ManyInputs(), inputs, ratios={"left": 0.5})
    assert made.slim.left.weight.shape == (8, 8)
    assert made.slim.right.weight.shape == (8, 6)
    assert inputs.call(made.slim).shape == (2, 5)


def test_inputs_alone_in_a_tuple_a_dict_or_by_themselves() -> None:
    model, x = ReturnsResult(), torch.randn(2, 8)
    for given in (x, (x,), [x], {"x": x}, tonsor.Inputs(x=x)):
        assert verdicts(inspect(model, given), "first.weight[0]") == ["free"]


class Features(ReturnsResult):
    def forward(self, x: Tensor) -> Any:
        h = self.first(x).relu()
        return self.last(h), h


def test_a_hidden_layer_that_is_returned_keeps_its_width() -> None:
    assert verdicts(inspect(Features(), torch.randn(2, 8)), "first.weight[0]") == ["output"]
