"""The calls of modules in a recorded run: what went in, what came out, and which ran inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tonsor.drops import Drop
from tonsor.graph.inputs import Inputs
from tonsor.graph.spans import gone_operators
from tonsor.graph.spots import Spots
from tonsor.graph.trace import trace
from tonsor.types import Call, Graph, Ref, Unknown


class Thing:
    """Neither a tensor nor plain."""


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: float, *, thing: Any = None, more: Any = ()) -> Any:
        y = self.one(x) * scale
        return self.two(y) + y, {"thing": thing, "more": more, "kind": "inner"}


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = Inner(), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.inner(x, 0.5, thing=Thing(), more=[x, None, (x, 3)])
        y, _ = self.inner(y, 2.0)
        return self.last(y)


class Tries(nn.Module):
    """One of its modules raises, and the model goes on without."""

    class Raises(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError(x.shape)

    def __init__(self) -> None:
        super().__init__()
        self.bad, self.good = self.Raises(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.bad(x)
        except ValueError:
            return self.good(x)


X = torch.randn(3, 4)


def recorded(model: nn.Module) -> Graph:
    return trace(model.eval(), Inputs(X))


def named(graph: Graph, module: str) -> list[Call]:
    return [c for c in graph.calls if c.module == module]


def test_calls_are_in_the_order_in_which_they_began() -> None:
    graph = recorded(Outer())
    once = ["inner", "inner.one", "inner.two"]
    assert [c.module for c in graph.calls] == ["", *once, *once, "last"]
    assert [c.depth for c in graph.calls] == [0, 1, 2, 2, 1, 2, 2, 1]
    whole = graph.calls[0]
    assert (whole.first, whole.stop) == (0, len(graph.ops))


def test_the_operators_of_a_call_ran_inside_of_it() -> None:
    graph = recorded(Outer())
    for call in graph.calls:
        inside = {op.module for op in graph.ops[call.first : call.stop]}
        assert all(m.startswith(call.module) for m in inside)
    assert [c.stop - c.first for c in named(graph, "inner")] == [4, 4]


def test_tensors_are_references_and_other_things_are_told_apart() -> None:
    graph = recorded(Outer())
    first, second = named(graph, "inner")
    ((_, given),) = graph.inputs
    assert first.args == (Ref(given), 0.5)
    assert first.kwargs["more"] == [Ref(given), None, (Ref(given), 3)]
    thing = first.kwargs["thing"]
    assert isinstance(thing, Unknown)
    assert thing.kind == "Thing"
    out, said = first.out
    assert out == Ref(graph.ops[first.stop - 1].outputs[0] or -1)
    assert said == {"thing": thing, "more": first.kwargs["more"], "kind": "inner"}
    assert second.args == (out, 2.0)
    assert second.out[1]["thing"] is None


def test_a_call_that_raised_is_left_out() -> None:
    graph = recorded(Tries())
    assert [c.module for c in graph.calls] == ["", "good"]


def test_an_exported_graph_has_no_calls() -> None:
    assert trace(Outer().eval(), Inputs(X), mode="export").calls == ()


def test_every_operator_is_found_again_by_its_spot() -> None:
    graph, again = recorded(Outer()), recorded(Outer())
    spots, others = Spots(graph), Spots(again)
    found = [spots.spot(op.index, "other") for op in graph.ops]
    assert len(set(found)) == len(graph.ops)
    assert [others.index(s) for s in found] == list(range(len(graph.ops)))
    assert found[3].turn == 0
    assert spots.spot(7).turn == 1  # the second addition in the inner module
    assert others.index(spots.spot(0).__class__("inner", "aten.add", 2)) is None


def test_operators_that_go_are_those_inside_but_not_what_stays() -> None:
    graph = recorded(Outer())
    drop = Drop("inner", "residual", ("inner",), (0,), through=("inner.two",))
    gone = gone_operators(graph, [drop])
    assert {graph.ops[i].module for i in gone} == {"inner", "inner.one"}
    assert gone_operators(graph, []) == set()
