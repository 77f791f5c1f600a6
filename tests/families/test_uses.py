"""Where parameters meet data in the recorded run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tonsor
from tests.models import ALL


class Net(nn.Module):
    """Two weights, and whatever is done with them."""

    scale: Tensor

    def __init__(self, run: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(6, 4)), nn.Parameter(torch.randn(3, 6))
        self.register_buffer("scale", torch.ones(6))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def operators(run: Callable[[Net, Tensor], Tensor]) -> dict[str, list[str]]:
    """The operators that each weight meets data in."""
    anatomy = tonsor.inspect(Net(run).eval(), torch.randn(2, 4))
    return {n: [anatomy.graph.ops[u.op].name for u in found] for n, found in anatomy.uses.items()}


def test_a_weight_meets_data_in_its_layer() -> None:
    found = operators(lambda m, x: F.linear(F.linear(x, m.w).relu(), m.v))
    assert found == {"w": ["aten.linear"], "v": ["aten.linear"]}


def test_what_is_computed_of_weights_only_is_no_use() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        whole = m.v @ (m.w / m.w.norm() * m.scale[:, None])
        return F.linear(x, whole)

    assert operators(run) == {"v": ["aten.linear"], "w": ["aten.linear"]}


def test_a_weight_is_used_again() -> None:
    found = operators(lambda m, x: F.linear(F.linear(F.linear(x, m.w), m.w.T), m.w) @ m.v.T)
    assert found == {"w": ["aten.linear"] * 3, "v": ["aten.matmul"]}


def test_room_that_data_is_written_into_is_data() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        room = torch.zeros(2, 6)
        room[:, :4] = x
        room[:, 4:] += 1
        return F.linear(room, m.v) + F.linear(x, m.w).sum(1, keepdim=True)

    found = operators(run)
    assert "aten.linear" in found["v"]
    assert "aten.linear" in found["w"]


def test_room_is_followed_through_its_views() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        room = torch.zeros(2, 6)
        left, right = room.split([4, 2], 1)
        left.copy_(x)
        right.copy_(x[:, :2])
        return F.linear(room, m.v) * m.w.sum()

    assert "aten.linear" in operators(run)["v"]


def test_room_that_weights_are_written_into_is_fixed() -> None:
    def run(m: Net, x: Tensor) -> Tensor:
        room = torch.zeros(3, 4)
        room[:, :] = m.w[:3]
        return F.linear(x, room) * m.v.sum()

    assert operators(run)["w"] == ["aten.linear"]


def test_what_comes_in_and_out() -> None:
    anatomy = tonsor.inspect(
        Net(lambda m, x: F.linear(F.linear(x, m.w) * m.scale, m.v)).eval(), torch.randn(2, 4)
    )
    (first,), (second,) = anatomy.uses["w"], anatomy.uses["v"]
    leaf, solution = "w[0]", anatomy.solution
    assert first.makes(solution, leaf)
    assert not first.reads(solution, leaf)
    assert second.reads(solution, leaf)
    assert not second.shows(solution, leaf)
    assert not second.makes(solution, leaf)


@pytest.mark.parametrize("name", ["slice_assign", "hf_bert", "resnet_pad", "lstm", "densenet"])
def test_every_weight_that_was_reached_is_used(name: str) -> None:
    model, args, kwargs = next(c for c in ALL if c.name == name).build()
    anatomy = tonsor.inspect(model, tonsor.Inputs(*args, **kwargs))
    graph = anatomy.graph
    reached = {graph.name_of[v] for n, v in graph.parameters.items() if n not in graph.unreached}
    assert set(anatomy.uses) == reached
    for found in anatomy.uses.values():
        assert [u.op for u in found] == sorted({u.op for u in found})
